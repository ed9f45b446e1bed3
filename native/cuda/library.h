// Shared libraries of the CUDA toolkit, loaded at run time: no header or import library of theirs is needed
// to build.
#pragma once

namespace gsa::cuda {

// One library: the names it may have, tried in order, after the path in the environment variable `variable`.
class Library {
 public:
  // `package` is what a user installs to get it; it completes "install ..." in the message.
  // Throws GSA_UNSUPPORTED when none of the names can be opened.
  Library(const char* title, const char* variable, const char* package, const char* const* names);

  // The address of a function; throws GSA_UNSUPPORTED when the library is too old to have it.
  template <typename Pointer>
  void resolve(Pointer& function, const char* name) const {
    function = reinterpret_cast<Pointer>(address(name));
  }

 private:
  void* address(const char* name) const;

  const char* title_;
  void* handle_ = nullptr;  // never closed: its functions are in use for the life of the process
};

}  // namespace gsa::cuda
