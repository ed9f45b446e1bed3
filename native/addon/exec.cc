#include "exec.h"

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "tensor.h"
#include "values.h"

namespace gsa::addon {

namespace {

struct Argument {
  std::string name;  // with its marks, as in ops.def
  bool optional;
  bool starred;
};

struct OpSpec {
  std::string name;
  std::vector<Argument> inputs, outputs;
  std::vector<std::string> attributes;
  bool starred = false;  // any argument is
};

std::vector<Argument> parse(const char* text) {
  std::vector<Argument> arguments;
  std::istringstream words(text);
  for (std::string word; words >> word;)
    arguments.push_back({word, word.find('?') != std::string::npos, word.find('*') != std::string::npos});
  return arguments;
}

OpSpec make_spec(const char* name, const char* inputs, const char* outputs, const char* attributes) {
  OpSpec spec;
  spec.name = name;
  spec.inputs = parse(inputs);
  spec.outputs = parse(outputs);
  for (const Argument& attribute : parse(attributes)) spec.attributes.push_back(attribute.name);
  for (const auto* side : {&spec.inputs, &spec.outputs})
    for (const Argument& argument : *side) spec.starred = spec.starred || argument.starred;
  return spec;
}

const std::vector<OpSpec>& specs() {
#define GSA_OP(name, inputs, outputs, attributes) make_spec(#name, inputs, outputs, attributes),
  static const auto* const all = new std::vector<OpSpec>{
#include "../ops/ops.def"
  };
#undef GSA_OP
  return *all;
}

// How many tensors `side` takes when every starred name stands for n; the optional starred ones only where
// `with_optional`.
size_t expected_count(const std::vector<Argument>& side, size_t n, bool with_optional) {
  size_t count = 0;
  for (const Argument& argument : side)
    count += !argument.starred ? 1 : argument.optional && !with_optional ? 0 : n;
  return count;
}

bool count_fits(const std::vector<Argument>& side, size_t count, size_t n) {
  return count == expected_count(side, n, true) || count == expected_count(side, n, false);
}

std::string signature(const OpSpec& spec) {
  std::string text;
  for (const Argument& argument : spec.inputs) text += argument.name + " ";
  text += "->";
  for (const Argument& argument : spec.outputs) text += " " + argument.name;
  return text;
}

// The n that starred names stand for (1 without any); throws when the counts fit no n.
size_t group_size(Napi::Env env, const OpSpec& spec, size_t n_in, size_t n_out) {
  const size_t most = spec.starred ? std::max(n_in, n_out) : 1;
  for (size_t n = 1; n <= most; ++n)
    if (count_fits(spec.inputs, n_in, n) && count_fits(spec.outputs, n_out, n)) return n;
  throw_coded(env, "INVALID_ARGUMENT", spec.name.c_str(),
              "Expected tensors for (" + signature(spec) + ") but received " + std::to_string(n_in) +
                  " inputs and " + std::to_string(n_out) + " outputs");
}

// The entries of an argument list: handles, and 0 for null. Reading an array may run getters, which may
// dispose of tensors, so what is behind a handle counts only once all is read.
std::vector<int64_t> read_handles(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) throw_type(value.Env(), "an array of tensor handles", name, value);
  const Napi::Array array = value.As<Napi::Array>();
  const uint32_t length = array.Length();
  std::vector<int64_t> handles;
  handles.reserve(std::min(length, 64u));  // an array may claim any length
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::Value entry = array.Get(i);
    handles.push_back(entry.IsNull() ? 0 : read_handle(entry, name));
  }
  return handles;
}

std::vector<const Tensor*> find_all(Napi::Env env, const std::vector<int64_t>& handles, const char* name) {
  std::vector<const Tensor*> tensors;
  tensors.reserve(handles.size());
  for (const int64_t handle : handles) tensors.push_back(handle == 0 ? nullptr : &find(env, handle, name));
  return tensors;
}

std::vector<double> read_attributes(const Napi::Value& value, const OpSpec& spec) {
  if (!value.IsArray()) throw_type(value.Env(), "an array of numbers", "the attributes", value);
  const Napi::Array array = value.As<Napi::Array>();
  const uint32_t length = array.Length();
  if (length != spec.attributes.size())
    throw_coded(value.Env(), "INVALID_ARGUMENT", spec.name.c_str(),
                "Expected " + std::to_string(spec.attributes.size()) + " attributes but received " +
                    std::to_string(length));
  std::vector<double> attributes;
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::Value entry = array.Get(i);
    attributes.push_back(read_number(entry, spec.attributes[i].c_str()));
  }
  return attributes;
}

// Checks presence, life and device of one side's tensors and appends them in ops.def order.
void collect(Napi::Env env, const OpSpec& spec, const std::vector<Argument>& side, size_t n,
             const std::vector<const Tensor*>& handles, const Storage*& first,
             std::vector<const gsa_tensor*>& views) {
  const bool with_optional = handles.size() == expected_count(side, n, true);
  size_t next = 0;
  for (const Argument& argument : side) {
    const size_t copies = !argument.starred ? 1 : argument.optional && !with_optional ? 0 : n;
    for (size_t i = 0; i < copies; ++i) {
      const Tensor* tensor = handles[next++];
      views.push_back(tensor ? &tensor->view : nullptr);
      if (!tensor) {
        if (argument.optional && !argument.starred) continue;
        throw_coded(env, "INVALID_ARGUMENT", spec.name.c_str(),
                    "Expected a tensor for " + argument.name + " but received null");
      }
      expect_alive(env, *tensor, argument.name.c_str(), spec.name.c_str());
      const Storage* storage = tensor->storage.get();
      if (!first) first = storage;
      if (storage->device.device != first->device.device)
        throw_coded(env, "INVALID_ARGUMENT", spec.name.c_str(),
                    "Expected all tensors on one device but " + argument.name + " is on another");
    }
  }
}

}  // namespace

Napi::Value list_ops(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto names = [env](const auto& list, auto name_of) {
    Napi::Array array = Napi::Array::New(env, list.size());
    for (uint32_t i = 0; i < list.size(); ++i) array.Set(i, Napi::String::New(env, name_of(list[i])));
    return array;
  };
  const auto argument_name = [](const Argument& argument) { return argument.name; };
  Napi::Array ops = Napi::Array::New(env, specs().size());
  for (uint32_t i = 0; i < specs().size(); ++i) {
    const OpSpec& spec = specs()[i];
    Napi::Object op = Napi::Object::New(env);
    op.Set("name", spec.name);
    op.Set("inputs", names(spec.inputs, argument_name));
    op.Set("outputs", names(spec.outputs, argument_name));
    op.Set("attributes", names(spec.attributes, [](const std::string& name) { return name; }));
    ops.Set(i, op);
  }
  return ops;
}

void exec(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int64_t index = read_integer(info[0], "the op number", 0, static_cast<int64_t>(specs().size()) - 1);
  const OpSpec& spec = specs()[static_cast<size_t>(index)];
  const std::vector<double> attributes = read_attributes(info[3], spec);
  const std::vector<int64_t> input_handles = read_handles(info[1], "the inputs");
  const std::vector<int64_t> output_handles = read_handles(info[2], "the outputs");
  const std::vector<const Tensor*> inputs = find_all(env, input_handles, "the inputs");
  const std::vector<const Tensor*> outputs = find_all(env, output_handles, "the outputs");

  const size_t n = group_size(env, spec, inputs.size(), outputs.size());
  std::vector<const gsa_tensor*> in, out;
  in.reserve(inputs.size());
  out.reserve(outputs.size());
  const Storage* first = nullptr;
  collect(env, spec, spec.inputs, n, inputs, first, in);
  collect(env, spec, spec.outputs, n, outputs, first, out);
  if (!first)
    throw_coded(env, "INVALID_ARGUMENT", spec.name.c_str(), "Expected at least one tensor but received none");

  const Device& d = first->device;
  const gsa_op_fn run = d.backend->ops[index];
  if (!run)
    throw_coded(
        env, "UNSUPPORTED", spec.name.c_str(),
        std::string("The ") + d.backend->name + " backend has no code for this op; run it on another device");
  gsa_args args{};
  args.in = in.data();
  args.out = out.data();
  args.attr = attributes.data();
  args.n_in = static_cast<int32_t>(in.size());
  args.n_out = static_cast<int32_t>(out.size());
  args.n_attr = static_cast<int32_t>(attributes.size());
  args.op = spec.name.c_str();
  gsa_error error;
  check(env, run(d.device, &args, &error), error, spec.name.c_str());
}

}  // namespace gsa::addon
