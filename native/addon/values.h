// Reading JavaScript values. What is wrong with a value is thrown as TypeError or RangeError that names the
// argument.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>

#include "../abi/gsa_abi.h"

namespace gsa::addon {

// What a JavaScript number holds exactly.
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

// A short description for messages. Never runs JavaScript (no toString, no getters).
std::string describe(const Napi::Value& value);

[[noreturn]] void throw_type(Napi::Env env, const char* wanted, const char* name,
                             const Napi::Value& received);
[[noreturn]] void throw_range(Napi::Env env, const std::string& wanted, const char* name,
                              const std::string& received);

// An Error with `code` (and `op` when not null), which src/native turns into a GsaError.
[[noreturn]] void throw_coded(Napi::Env env, const char* code, const char* op, const std::string& message);
// The code of a status other than GSA_OK.
const char* code_of(gsa_status status);
// Throws when the status is not GSA_OK.
void check(Napi::Env env, gsa_status status, const gsa_error& error, const char* op = nullptr);

// An integer in [least, most].
int64_t read_integer(const Napi::Value& value, const char* name, int64_t least, int64_t most);
std::string read_string(const Napi::Value& value, const char* name);
double read_number(const Napi::Value& value, const char* name);

// As many as a shape has at most.
struct Integers {
  int64_t values[GSA_MAX_DIMS];
  int32_t count;
};
Integers read_integers(const Napi::Value& value, const char* name, int64_t least);

struct Bytes {
  uint8_t* data;
  size_t size;
};
// The memory under a typed array, Buffer or DataView; empty when its ArrayBuffer was detached.
Bytes read_bytes(const Napi::Value& value, const char* name);

}  // namespace gsa::addon
