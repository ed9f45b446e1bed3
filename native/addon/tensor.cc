#include "tensor.h"

#include <string>
#include <vector>

#include "../abi/args.h"
#include "transfer.h"
#include "values.h"

namespace gsa::addon {

namespace {

constexpr napi_type_tag kTensorTag = {0x6d0f3c6a9b1e4d27, 0x8e52b7f40c91a3d5};

// `a * b` or `a + b` as int64, RangeError for `name` when they do not fit.
int64_t multiply(Napi::Env env, int64_t a, int64_t b, const char* name) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product))
    throw_range(env, "fewer than 2^63 elements or bytes", name, "more");
  return product;
}

int64_t add(Napi::Env env, int64_t a, int64_t b, const char* name) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) throw_range(env, "fewer than 2^63 elements or bytes", name, "more");
  return sum;
}

// Shape, row-major strides and the number of elements. Strides over an empty extent count it as one.
int64_t set_contiguous(Napi::Env env, gsa_tensor& view, const std::vector<int64_t>& shape) {
  view.ndim = static_cast<int32_t>(shape.size());
  int64_t stride = 1;
  bool empty = false;
  for (int32_t i = view.ndim - 1; i >= 0; --i) {
    view.shape[i] = shape[i];
    view.strides[i] = stride;
    empty = empty || shape[i] == 0;
    stride = multiply(env, stride, shape[i] == 0 ? 1 : shape[i], "the shape");
  }
  return empty ? 0 : stride;
}

void finalize(napi_env, void* data, void*) {
  auto* tensor = static_cast<Tensor*>(data);
  if (tensor->storage.use_count() == 1) tensor->storage->count_as_garbage();
  delete tensor;
}

// A wrapped object rather than an external: an external's memory goes only with its finalizer, which Node.js
// runs in a later turn of the event loop, so that a program that trains in one long turn would grow by every
// handle it disposes of.
Napi::Value make_handle(Napi::Env env, std::unique_ptr<Tensor> tensor) {
  napi_value handle;
  if (napi_create_object(env, &handle) != napi_ok ||
      napi_type_tag_object(env, handle, &kTensorTag) != napi_ok ||
      napi_wrap(env, handle, tensor.get(), finalize, nullptr, nullptr) != napi_ok)
    throw_coded(env, "INTERNAL", nullptr, "Node.js refused to create a handle");
  tensor.release();  // dispose()'s or the finalizer's from here on
  return Napi::Value(env, handle);
}

int64_t first_element(const Tensor& tensor) {
  const auto* start = static_cast<const char*>(tensor.storage->data);
  return (static_cast<const char*>(tensor.view.data) - start) / dtype_bytes(tensor.view.dtype);
}

// The last element of the view must lie inside the storage; all numbers are the caller's.
void expect_inside(Napi::Env env, const gsa_tensor& view, int64_t first, int64_t capacity) {
  int64_t last = first;
  bool empty = false;
  int64_t count = 1;
  for (int32_t i = 0; i < view.ndim; ++i) {
    empty = empty || view.shape[i] == 0;
    if (view.shape[i] == 0) continue;
    count = multiply(env, count, view.shape[i], "the shape");
    last = add(env, last, multiply(env, view.shape[i] - 1, view.strides[i], "the view"), "the view");
  }
  const bool inside = empty ? first >= 0 && first <= capacity : first >= 0 && last < capacity;
  if (!inside)
    throw_range(env, "elements 0 to " + std::to_string(capacity) + " (exclusive) of the storage", "the view",
                std::to_string(first) + " to " + std::to_string(last));
}

}  // namespace

const Tensor& unwrap(const Napi::Value& value, const char* name) {
  static const Tensor disposed{};
  const Napi::Env env = value.Env();
  bool ours = false;
  if (!value.IsObject() || napi_check_object_type_tag(env, value, &kTensorTag, &ours) != napi_ok || !ours)
    throw_type(env, "a tensor handle", name, value);
  void* data = nullptr;
  return napi_unwrap(env, value, &data) == napi_ok ? *static_cast<Tensor*>(data) : disposed;
}

void expect_alive(Napi::Env env, const Tensor& tensor, const char* name, const char* op) {
  if (!tensor.storage)
    throw_coded(env, "USE_AFTER_DISPOSE", op,
                std::string("Expected a live tensor for ") + name + " but received a disposed one");
}

const Tensor& unwrap_alive(const Napi::Value& value, const char* name) {
  const Tensor& tensor = unwrap(value, name);
  expect_alive(value.Env(), tensor, name);
  return tensor;
}

Napi::Value create_tensor(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Device device = open_device(info[0], info[1]);
  auto tensor = std::make_unique<Tensor>();
  tensor->view = gsa_tensor{};
  tensor->view.dtype = static_cast<int32_t>(read_integer(info[2], "the dtype", 0, GSA_INT64));
  const std::vector<int64_t> shape = read_integers(info[3], "the shape", 0, GSA_MAX_DIMS);
  const int64_t count = set_contiguous(env, tensor->view, shape);
  const int64_t bytes = multiply(env, count, dtype_bytes(tensor->view.dtype), "the shape");
  tensor->storage =
      std::make_shared<Storage>(env, device, static_cast<uint64_t>(bytes), thread_state(env).counters);
  tensor->view.data = tensor->storage->data;
  return make_handle(env, std::move(tensor));
}

Napi::Value create_view(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  // Arrays first: a getter in them could dispose of the base.
  const std::vector<int64_t> shape = read_integers(info[1], "the shape", 0, GSA_MAX_DIMS);
  const std::vector<int64_t> strides = read_integers(info[2], "the strides", 0, GSA_MAX_DIMS);
  if (strides.size() != shape.size())
    throw_range(env, std::to_string(shape.size()) + " entries", "the strides",
                std::to_string(strides.size()));
  const int64_t offset = read_integer(info[3], "the offset", -kMaxSafeInteger, kMaxSafeInteger);
  const Tensor& base = unwrap_alive(info[0], "the base");

  auto tensor = std::make_unique<Tensor>();
  tensor->storage = base.storage;
  tensor->view = gsa_tensor{};
  tensor->view.dtype = base.view.dtype;
  tensor->view.ndim = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    tensor->view.shape[i] = shape[i];
    tensor->view.strides[i] = strides[i];
  }
  const int64_t size = dtype_bytes(base.view.dtype);
  const int64_t first = add(env, first_element(base), offset, "the offset");
  expect_inside(env, tensor->view, first, static_cast<int64_t>(base.storage->bytes) / size);
  tensor->view.data = static_cast<char*>(base.storage->data) + first * size;
  return make_handle(env, std::move(tensor));
}

void dispose(const Napi::CallbackInfo& info) {
  unwrap(info[0], "the tensor");
  void* data = nullptr;
  if (napi_remove_wrap(info.Env(), info[0], &data) == napi_ok) delete static_cast<Tensor*>(data);
}

Napi::Value leaks(const Napi::CallbackInfo& info) {
  const Counters& counters = *thread_state(info.Env()).counters;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("finalized", counters.finalized);
  result.Set("alive", counters.alive);
  return result;
}

}  // namespace gsa::addon
