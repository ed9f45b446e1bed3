#include "values.h"

#include <cmath>
#include <cstdio>

namespace gsa::addon {

std::string describe(const Napi::Value& value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_boolean:
      return value.As<Napi::Boolean>().Value() ? "true" : "false";
    case napi_number: {
      const double number = value.As<Napi::Number>().DoubleValue();
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
      char text[32];
      std::snprintf(text, sizeof text, "%.17g", number);
      return text;
    }
    case napi_string: {
      const std::string text = value.As<Napi::String>().Utf8Value();
      return '"' + (text.size() > 60 ? text.substr(0, 57) + "..." : text) + '"';
    }
    case napi_symbol:
      return "a symbol";
    case napi_bigint:
      return "a bigint";
    case napi_function:
      return "a function";
    case napi_external:
      return "a foreign handle";
    case napi_object:
      return value.IsArray() ? "an array" : "an object";
  }
  return "an unknown value";
}

void throw_type(Napi::Env env, const char* wanted, const char* name, const Napi::Value& received) {
  throw Napi::TypeError::New(
      env, std::string("Expected ") + wanted + " for " + name + " but received " + describe(received));
}

void throw_range(Napi::Env env, const std::string& wanted, const char* name, const std::string& received) {
  throw Napi::RangeError::New(env, "Expected " + wanted + " for " + name + " but received " + received);
}

void throw_coded(Napi::Env env, const char* code, const char* op, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  if (op) error.Set("op", Napi::String::New(env, op));
  throw error;
}

const char* code_of(gsa_status status) {
  return status == GSA_INVALID_ARGUMENT ? "INVALID_ARGUMENT"
         : status == GSA_UNSUPPORTED    ? "UNSUPPORTED"
         : status == GSA_OUT_OF_MEMORY  ? "OUT_OF_MEMORY"
         : status == GSA_DEVICE_LOST    ? "DEVICE_LOST"
                                        : "INTERNAL";
}

void check(Napi::Env env, gsa_status status, const gsa_error& error, const char* op) {
  if (status != GSA_OK) throw_coded(env, code_of(status), op, error.message);
}

int64_t read_integer(const Napi::Value& value, const char* name, int64_t least, int64_t most) {
  const double number = read_number(value, name);
  if (number >= static_cast<double>(least) && number <= static_cast<double>(most) &&
      number == std::floor(number))
    return static_cast<int64_t>(number);
  throw_range(value.Env(), "an integer from " + std::to_string(least) + " to " + std::to_string(most), name,
              describe(value));
}

std::string read_string(const Napi::Value& value, const char* name) {
  if (!value.IsString()) throw_type(value.Env(), "a string", name, value);
  return value.As<Napi::String>().Utf8Value();
}

double read_number(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) throw_type(value.Env(), "a number", name, value);
  return value.As<Napi::Number>().DoubleValue();
}

Integers read_integers(const Napi::Value& value, const char* name, int64_t least) {
  if (!value.IsArray()) throw_type(value.Env(), "an array of integers", name, value);
  const Napi::Array array = value.As<Napi::Array>();
  const uint32_t length = array.Length();
  if (length > GSA_MAX_DIMS)
    throw_range(value.Env(), "at most " + std::to_string(GSA_MAX_DIMS) + " entries", name,
                std::to_string(length));
  Integers read{};
  read.count = static_cast<int32_t>(length);
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::Value entry = array.Get(i);  // may run a getter
    read.values[i] = read_integer(entry, name, least, kMaxSafeInteger);
  }
  return read;
}

Bytes read_bytes(const Napi::Value& value, const char* name) {
  const Napi::Env env = value.Env();
  void* data = nullptr;
  size_t size = 0;
  napi_status status;
  if (value.IsTypedArray()) {
    // Through napi_get_buffer_info: it knows the size in bytes of every kind of typed array.
    status = napi_get_buffer_info(env, value, &data, &size);
  } else if (value.IsDataView()) {
    status = napi_get_dataview_info(env, value, &size, &data, nullptr, nullptr);
  } else {
    throw_type(env, "a typed array, Buffer or DataView", name, value);
  }
  if (status != napi_ok) throw_type(env, "a readable typed array, Buffer or DataView", name, value);
  return {static_cast<uint8_t*>(data), size};
}

}  // namespace gsa::addon
