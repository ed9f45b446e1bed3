#include "tensor.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "../abi/args.h"
#include "transfer.h"
#include "values.h"

namespace gsa::addon {

namespace {

// A handle is round * kPlaces + place, an integer that a JavaScript number holds exactly; rounds start with
// 1, so that small numbers are no handles. A place whose rounds are used up is not taken again.
constexpr int64_t kPlaces = int64_t{1} << 24;
constexpr int64_t kRounds = kMaxSafeInteger / kPlaces;

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
int64_t set_contiguous(Napi::Env env, gsa_tensor& view, const Integers& shape) {
  view.ndim = shape.count;
  int64_t stride = 1;
  bool empty = false;
  for (int32_t i = view.ndim - 1; i >= 0; --i) {
    const int64_t extent = shape.values[i];
    view.shape[i] = extent;
    view.strides[i] = stride;
    empty = empty || extent == 0;
    stride = multiply(env, stride, extent == 0 ? 1 : extent, "the shape");
  }
  return empty ? 0 : stride;
}

Napi::Value make_handle(Napi::Env env, Tensor tensor) {
  return Napi::Number::New(env, static_cast<double>(thread_state(env).tensors.add(std::move(tensor))));
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

int64_t TensorTable::add(Tensor tensor) {
  int64_t place = static_cast<int64_t>(places_.size());
  if (free_.empty()) {
    if (place == kPlaces) throw std::length_error("Expected fewer than 2^24 live tensors; dispose of some");
    places_.emplace_back();
    free_.reserve(places_.size());  // remove() must not fail
  } else {
    place = free_.back();
    free_.pop_back();
  }
  Place& taken = places_[static_cast<size_t>(place)];
  taken.tensor = std::move(tensor);
  return ++taken.round * kPlaces + place;
}

const Tensor* TensorTable::find(int64_t handle) const {
  static const Tensor disposed{};
  const int64_t round = handle / kPlaces;
  const auto place = static_cast<size_t>(handle % kPlaces);
  if (place >= places_.size() || round > places_[place].round) return nullptr;
  return round == places_[place].round ? &places_[place].tensor : &disposed;
}

void TensorTable::remove(int64_t handle) {
  const Tensor* tensor = find(handle);
  if (!tensor || !tensor->storage) return;
  const int64_t place = handle % kPlaces;
  Place& left = places_[static_cast<size_t>(place)];
  left.tensor = Tensor{};
  if (left.round < kRounds) free_.push_back(place);
}

int64_t read_handle(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0.0;
  if (!(number >= static_cast<double>(kPlaces) && number <= static_cast<double>(kMaxSafeInteger) &&
        number == std::floor(number)))
    throw_type(value.Env(), "a tensor handle", name, value);
  return static_cast<int64_t>(number);
}

const Tensor& find(Napi::Env env, int64_t handle, const char* name) {
  const Tensor* tensor = thread_state(env).tensors.find(handle);
  if (!tensor) throw_type(env, "a tensor handle", name, Napi::Number::New(env, static_cast<double>(handle)));
  return *tensor;
}

const Tensor& unwrap(const Napi::Value& value, const char* name) {
  return find(value.Env(), read_handle(value, name), name);
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
  Tensor tensor;
  tensor.view.dtype = static_cast<int32_t>(read_integer(info[2], "the dtype", 0, GSA_INT16));
  const Integers shape = read_integers(info[3], "the shape", 0);
  const int64_t count = set_contiguous(env, tensor.view, shape);
  const int64_t bytes = multiply(env, count, dtype_bytes(tensor.view.dtype), "the shape");
  tensor.storage =
      std::make_shared<Storage>(env, device, static_cast<uint64_t>(bytes), thread_state(env).counters);
  tensor.view.data = tensor.storage->data;
  return make_handle(env, std::move(tensor));
}

Napi::Value create_view(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  // Arrays first: a getter in them could dispose of the base.
  const Integers shape = read_integers(info[1], "the shape", 0);
  const Integers strides = read_integers(info[2], "the strides", 0);
  if (strides.count != shape.count)
    throw_range(env, std::to_string(shape.count) + " entries", "the strides", std::to_string(strides.count));
  const int64_t offset = read_integer(info[3], "the offset", -kMaxSafeInteger, kMaxSafeInteger);
  const Tensor& base = unwrap_alive(info[0], "the base");

  Tensor tensor;
  tensor.storage = base.storage;
  tensor.view.dtype = base.view.dtype;
  tensor.view.ndim = shape.count;
  for (int32_t i = 0; i < shape.count; ++i) {
    tensor.view.shape[i] = shape.values[i];
    tensor.view.strides[i] = strides.values[i];
  }
  const int64_t size = dtype_bytes(base.view.dtype);
  const int64_t first = add(env, first_element(base), offset, "the offset");
  expect_inside(env, tensor.view, first, static_cast<int64_t>(base.storage->bytes) / size);
  tensor.view.data = static_cast<char*>(base.storage->data) + first * size;
  return make_handle(env, std::move(tensor));
}

Napi::Value share(const Napi::CallbackInfo& info) {
  return make_handle(info.Env(), Tensor(unwrap_alive(info[0], "the tensor")));
}

void dispose(const Napi::CallbackInfo& info) {
  unwrap(info[0], "the tensor");
  thread_state(info.Env()).tensors.remove(read_handle(info[0], "the tensor"));
}

void dispose_forgotten(const Napi::CallbackInfo& info) {
  const Tensor& tensor = unwrap(info[0], "the tensor");
  if (tensor.storage && tensor.storage.use_count() == 1) tensor.storage->count_as_garbage();
  dispose(info);
}

Napi::Value leaks(const Napi::CallbackInfo& info) {
  const Counters& counters = *thread_state(info.Env()).counters;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("finalized", counters.finalized);
  result.Set("alive", counters.alive);
  return result;
}

}  // namespace gsa::addon
