#include "transfer.h"

#include <string>

#include "../abi/args.h"
#include "tensor.h"
#include "values.h"

namespace gsa::addon {

namespace {

uint64_t expect_contiguous(Napi::Env env, const Tensor& tensor) {
  if (!is_contiguous(tensor.view))
    throw_coded(env, "INVALID_ARGUMENT", nullptr,
                "Expected a contiguous tensor but received a strided view; copy it with cast first");
  return static_cast<uint64_t>(element_count(tensor.view)) *
         static_cast<uint64_t>(dtype_bytes(tensor.view.dtype));
}

// What read() and write() need: a contiguous tensor and as many bytes as it has.
uint64_t expect_same_size(Napi::Env env, const Tensor& tensor, const Bytes& bytes, const char* name) {
  const uint64_t size = expect_contiguous(env, tensor);
  if (bytes.size != size) throw_range(env, std::to_string(size) + " bytes", name, std::to_string(bytes.size));
  return size;
}

// By JavaScript's own constructor, which throws where there is no memory; napi_create_arraybuffer would end
// the process.
Napi::ArrayBuffer make_buffer(Napi::Env env, uint64_t bytes) {
  const Napi::Value constructor = env.Global().Get("ArrayBuffer");
  if (!constructor.IsFunction()) throw_type(env, "a function", "the global ArrayBuffer", constructor);
  const Napi::Value made =
      constructor.As<Napi::Function>().New({Napi::Number::New(env, static_cast<double>(bytes))});
  if (!made.IsArrayBuffer() || made.As<Napi::ArrayBuffer>().ByteLength() != bytes)
    throw_type(env, "an ArrayBuffer", "what the global ArrayBuffer makes", made);
  return made.As<Napi::ArrayBuffer>();
}

}  // namespace

ThreadState& thread_state(Napi::Env env) { return *env.GetInstanceData<ThreadState>(); }

napi_value ReadQueue::push(gsa_read* read, napi_value buffer) {
  auto entry = std::make_unique<Pending>(Pending{read, nullptr, nullptr, GSA_OK, {}});
  napi_value promise = nullptr;
  if (napi_create_reference(env_, buffer, 1, &entry->buffer) != napi_ok ||
      napi_create_promise(env_, &entry->promise, &promise) != napi_ok) {
    gsa_error ignored;
    device_.backend->read_end(device_.device, read, &ignored);
    throw_coded(env_, "INTERNAL", nullptr, "Node.js refused to create a promise");
  }
  pending_.push_back(std::move(entry));
  if (!first_) next();
  return promise;
}

void ReadQueue::next() {
  first_ = nullptr;
  while (!pending_.empty()) {
    first_ = pending_.front().get();
    if (wait_in_pool()) return;
    end_first();
    settle_first();
  }
}

bool ReadQueue::wait_in_pool() {
  napi_value name;
  if (napi_create_string_utf8(env_, "flash-gsa read", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env_, nullptr, name, execute, complete, this, &work_) != napi_ok)
    return false;
  if (napi_queue_async_work(env_, work_) == napi_ok) return true;
  napi_delete_async_work(env_, work_);
  return false;
}

void ReadQueue::execute(napi_env, void* data) { static_cast<ReadQueue*>(data)->end_first(); }

void ReadQueue::end_first() {
  first_->status = device_.backend->read_end(device_.device, first_->read, &first_->error);
}

// Also when the thread is being ended: then nothing can be resolved any more, but the reads still have to end
// before their buffers go.
void ReadQueue::complete(napi_env env, napi_status, void* data) {
  auto& queue = *static_cast<ReadQueue*>(data);
  napi_delete_async_work(env, queue.work_);
  queue.settle_first();
  queue.next();
}

void ReadQueue::settle_first() {
  const std::unique_ptr<Pending> entry = std::move(pending_.front());
  pending_.pop_front();
  first_ = nullptr;
  napi_value value, code, message;
  if (entry->status == GSA_OK) {
    if (napi_get_reference_value(env_, entry->buffer, &value) == napi_ok)
      napi_resolve_deferred(env_, entry->promise, value);
  } else if (napi_create_string_utf8(env_, code_of(entry->status), NAPI_AUTO_LENGTH, &code) == napi_ok &&
             napi_create_string_utf8(env_, entry->error.message, NAPI_AUTO_LENGTH, &message) == napi_ok &&
             napi_create_error(env_, code, message, &value) == napi_ok) {
    napi_reject_deferred(env_, entry->promise, value);
  }
  napi_delete_reference(env_, entry->buffer);
}

void write(const Napi::CallbackInfo& info) {
  const Tensor& tensor = unwrap_alive(info[0], "the tensor");
  const Bytes source = read_bytes(info[1], "the source");
  const uint64_t size = expect_same_size(info.Env(), tensor, source, "the source");
  if (size == 0) return;
  const Device& d = tensor.storage->device;
  gsa_error error;
  check(info.Env(),
        d.backend->copy(d.device, tensor.view.data, source.data, size, GSA_HOST_TO_DEVICE, &error), error);
}

void read(const Napi::CallbackInfo& info) {
  const Tensor& tensor = unwrap_alive(info[0], "the tensor");
  const Bytes target = read_bytes(info[1], "the target");
  const uint64_t size = expect_same_size(info.Env(), tensor, target, "the target");
  if (size == 0) return;
  const Device& d = tensor.storage->device;
  gsa_error error;
  check(info.Env(),
        d.backend->copy(d.device, target.data, tensor.view.data, size, GSA_DEVICE_TO_HOST, &error), error);
}

Napi::Value read_async(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint64_t size = expect_contiguous(env, unwrap_alive(info[0], "the tensor"));
  Napi::ArrayBuffer buffer = make_buffer(env, size);
  const Tensor& tensor = unwrap_alive(info[0], "the tensor");  // again: JavaScript ran
  const Device& d = tensor.storage->device;
  if (size == 0) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    deferred.Resolve(buffer);
    return deferred.Promise();
  }
  gsa_read* started = nullptr;
  gsa_error error;
  check(env, d.backend->read_start(d.device, buffer.Data(), tensor.view.data, size, &started, &error), error);
  ReadQueue& queue = thread_state(env).reads.try_emplace(d.device, env, d).first->second;
  return Napi::Value(env, queue.push(started, buffer));
}

}  // namespace gsa::addon
