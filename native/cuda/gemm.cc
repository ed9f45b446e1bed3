#include "gemm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cublaslt_api.h"
#include "library.h"
#include "memory.h"
#include "status.h"

namespace gsa::cuda {

namespace lt {

const Functions& functions() {
  static const Functions loaded = [] {
    static const char* const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                                        "/usr/local/cuda/lib64/libcublasLt.so", nullptr};
    const Library library("cuBLASLt", "FLASH_GSA_CUBLASLT", "cuBLAS of the CUDA toolkit", names);
    Functions f{};
    library.resolve(f.create, "cublasLtCreate");
    library.resolve(f.desc_create, "cublasLtMatmulDescCreate");
    library.resolve(f.desc_destroy, "cublasLtMatmulDescDestroy");
    library.resolve(f.desc_set, "cublasLtMatmulDescSetAttribute");
    library.resolve(f.layout_create, "cublasLtMatrixLayoutCreate");
    library.resolve(f.layout_destroy, "cublasLtMatrixLayoutDestroy");
    library.resolve(f.layout_set, "cublasLtMatrixLayoutSetAttribute");
    library.resolve(f.preference_create, "cublasLtMatmulPreferenceCreate");
    library.resolve(f.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    library.resolve(f.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    library.resolve(f.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    library.resolve(f.matmul, "cublasLtMatmul");
    return f;
  }();
  return loaded;
}

}  // namespace lt

namespace {

// What NVIDIA recommends for Hopper; smaller ones exclude some split-K algorithms. With 512 MiB those that
// take more were slower, all of them (docs/training-step.md).
constexpr size_t kWorkspaceBytes = 32u << 20;

// Products from this many operations on (some 20 us) try several algorithms at their first call. Which one
// wins may differ from one process to the next, and with it the last bits; FLASH_GSA_GEMM_TRIALS=N tries N,
// and 0 takes the library's first guess everywhere.
constexpr double kTriedFrom = 1e10;
constexpr int kMostTried = 8;  // asked for 100, the library named 8 for each product of the 1.3B model's step
constexpr int kRounds = 3;
constexpr float kClearly = 0.99f;

void check_lt(int status, const char* doing) {
  if (status == 0) return;
  const gsa_status kind = status == 3 ? GSA_OUT_OF_MEMORY : status == 15 ? GSA_UNSUPPORTED : GSA_INTERNAL;
  fail(kind, "cuBLASLt failed while %s (cublasStatus_t %d)", doing, status);
}

// The library is column-major, so the row-major C = op(A) op(B) is asked for as C^T = op(B)^T op(A)^T: the
// operands change places, and a row-major matrix read by columns is its transpose already.
struct Plan {
  lt::Desc desc = nullptr;
  lt::Layout a = nullptr, b = nullptr, c = nullptr;
  lt::Algorithm algorithm{};
  size_t workspace = 0;
};

using Key = std::array<int64_t, 16>;

// The largest power of two that divides an address, at most what the library assumes when it is not told.
uint32_t alignment(const void* p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

int32_t b_dtype(const Gemm& g) { return g.b_dtype < 0 ? g.dtype : g.b_dtype; }

// What beta is a factor of.
const void* added(const Gemm& g) { return g.addend ? g.addend : g.c; }

Key key_of(const Gemm& g) {
  const int64_t flags = g.dtype | g.c_dtype << 4 | g.trans_a << 8 | g.trans_b << 9 |
                        (g.bias != nullptr) << 10 | (g.beta != 0.0f) << 11 | b_dtype(g) << 12 |
                        g.fast_sums << 16;
  // A view may start anywhere, and an algorithm for aligned matrices would fault on it.
  return {flags,
          g.m,
          g.n,
          g.k,
          g.batch,
          g.lda,
          g.stride_a,
          g.ldb,
          g.stride_b,
          g.ldc,
          g.stride_c,
          alignment(g.a),
          alignment(g.b),
          alignment(g.c),
          alignment(added(g))};
}

int lt_type(int32_t dtype) {
  switch (dtype) {
    case GSA_BFLOAT16:
      return lt::kBFloat16;
    case GSA_FLOAT8_E4M3:
      return lt::kFloat8E4M3;
    case GSA_FLOAT8_E5M2:
      return lt::kFloat8E5M2;
    default:
      return lt::kFloat32;
  }
}

lt::Layout make_layout(int32_t dtype, int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t stride) {
  const lt::Functions& f = lt::functions();
  lt::Layout layout = nullptr;
  check_lt(
      f.layout_create(&layout, lt_type(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), ld),
      "describing a matrix");
  const int32_t count = static_cast<int32_t>(batch);
  check_lt(f.layout_set(layout, lt::kBatchCount, &count, sizeof count), "describing a batch");
  check_lt(f.layout_set(layout, lt::kBatchStride, &stride, sizeof stride), "describing a batch");
  return layout;
}

// A and B change places, see Plan.
void set_scales(const Plan& plan, const Gemm& g) {
  const lt::Functions& f = lt::functions();
  const std::pair<int, const float*> scales[] = {{lt::kScaleA, g.b_scale}, {lt::kScaleB, g.a_scale}};
  for (const auto& [attribute, scale] : scales)
    if (scale) check_lt(f.desc_set(plan.desc, attribute, &scale, sizeof scale), "setting a scale");
}

void describe(Plan& plan, const Gemm& g) {
  const lt::Functions& f = lt::functions();
  check_lt(f.desc_create(&plan.desc, lt::kCompute32F, lt::kFloat32), "describing a product");
  const int32_t first = g.trans_b ? lt::kTranspose : lt::kNone;
  const int32_t second = g.trans_a ? lt::kTranspose : lt::kNone;
  check_lt(f.desc_set(plan.desc, lt::kTransA, &first, sizeof first), "describing a product");
  check_lt(f.desc_set(plan.desc, lt::kTransB, &second, sizeof second), "describing a product");
  if (g.bias) {
    const uint32_t epilogue = lt::kBias;
    check_lt(f.desc_set(plan.desc, lt::kEpilogue, &epilogue, sizeof epilogue), "describing the bias");
    check_lt(f.desc_set(plan.desc, lt::kBiasPointer, &g.bias, sizeof g.bias), "describing the bias");
  }
  if (g.fast_sums) {
    const int8_t fast = 1;
    check_lt(f.desc_set(plan.desc, lt::kFastSums, &fast, sizeof fast), "describing the sums");
  }
  set_scales(plan, g);
  // Stored shapes: A is [m,k] or, transposed, [k,m]; read by columns the extents change places.
  plan.a = make_layout(b_dtype(g), g.trans_b ? g.k : g.n, g.trans_b ? g.n : g.k, g.ldb, g.batch, g.stride_b);
  plan.b = make_layout(g.dtype, g.trans_a ? g.m : g.k, g.trans_a ? g.k : g.m, g.lda, g.batch, g.stride_a);
  plan.c = make_layout(g.c_dtype, g.n, g.m, g.ldc, g.batch, g.stride_c);
}

// The library's guesses for this product, best first; throws when it has none.
std::vector<lt::Heuristic> candidates(const Plan& plan, lt::Handle handle, const Gemm& g, int wanted) {
  const lt::Functions& f = lt::functions();
  lt::Preference preference = nullptr;
  check_lt(f.preference_create(&preference), "choosing an algorithm");
  std::vector<lt::Heuristic> found(static_cast<size_t>(wanted));
  int count = 0;
  int set = f.preference_set(preference, lt::kMaxWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes);
  // A and B change places, see Plan.
  const std::pair<int, const void*> starts[] = {
      {lt::kAlignA, g.b}, {lt::kAlignB, g.a}, {lt::kAlignC, added(g)}, {lt::kAlignD, g.c}};
  for (const auto& [attribute, pointer] : starts) {
    const uint32_t bytes = alignment(pointer);
    if (!set) set = f.preference_set(preference, attribute, &bytes, sizeof bytes);
  }
  const int status = set ? set
                         : f.heuristic(handle, plan.desc, plan.a, plan.b, plan.c, plan.c, preference, wanted,
                                       found.data(), &count);
  f.preference_destroy(preference);
  if (status != 0 || count == 0)
    fail(GSA_UNSUPPORTED,
         "cuBLASLt has no algorithm for m %lld, n %lld, k %lld, batch %lld (cublasStatus_t %d)",
         static_cast<long long>(g.m), static_cast<long long>(g.n), static_cast<long long>(g.k),
         static_cast<long long>(g.batch), status);
  found.resize(static_cast<size_t>(count));
  return found;
}

int tries_wanted() {
  static const int wanted = [] {
    const char* setting = std::getenv("FLASH_GSA_GEMM_TRIALS");
    return setting ? std::clamp(std::atoi(setting), 1, 1000) : kMostTried;
  }();
  return wanted;
}

// Where candidates are tried: a result of their own, since the product may add to what is there.
struct Trial {
  Trial(gsa_device& device, uint64_t bytes) : device(device) {
    check(cudaEventCreate(&start), "timing a product");
    check(cudaEventCreate(&stop), "timing a product");
    result = take_uncounted(device, bytes);
  }
  ~Trial() {
    give_uncounted_back(device, result);
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  gsa_device& device;
  cudaEvent_t start = nullptr, stop = nullptr;
  void* result = nullptr;
};

// Handle, plans and workspace of one device. Calls on a device are ordered by its stream, so one workspace
// serves all.
class Context {
 public:
  explicit Context(gsa_device& device) {
    check_lt(lt::functions().create(&handle_), "starting");
    // For the life of the process, like the library's own memory: not among what tensors use.
    workspace_ = take_uncounted(device, kWorkspaceBytes);
    if (!workspace_)
      fail(GSA_OUT_OF_MEMORY, "Expected room for cuBLASLt's workspace of %zu MiB", kWorkspaceBytes >> 20);
  }

  void run(gsa_device& device, const Gemm& g) {
    std::lock_guard<std::mutex> lock(mutex_);
    Plan& plan = plan_for(device, g);
    check_lt(launch(device, plan, plan.algorithm, plan.workspace, g, g.c), "multiplying");
  }

 private:
  int launch(gsa_device& device, Plan& plan, const lt::Algorithm& algorithm, size_t workspace, const Gemm& g,
             void* result) {
    const lt::Functions& f = lt::functions();
    if (g.bias) check_lt(f.desc_set(plan.desc, lt::kBiasPointer, &g.bias, sizeof g.bias), "setting the bias");
    set_scales(plan, g);
    return f.matmul(handle_, plan.desc, &g.alpha, g.b, plan.a, g.a, plan.b, &g.beta, added(g), plan.c, result,
                    plan.c, &algorithm, workspace_, workspace, device.stream);
  }

  // The library's first guess, or for a large product the fastest of its first few on the operands at hand.
  void choose(gsa_device& device, Plan& plan, const Gemm& g) {
    const double operations = 2.0 * static_cast<double>(g.m * g.n) * static_cast<double>(g.k * g.batch);
    const int tries = operations >= kTriedFrom ? tries_wanted() : 1;
    const std::vector<lt::Heuristic> found = candidates(plan, handle_, g, tries);
    const size_t best = found.size() > 1 ? fastest(device, plan, found, g) : 0;
    plan.algorithm = found[best].algorithm;
    plan.workspace = found[best].workspace;
  }

  // Index of the candidate with the shortest time, in rounds over all of them, so that a clock that moves
  // meanwhile does it to all. The first keeps its place against what is not clearly faster.
  size_t fastest(gsa_device& device, Plan& plan, const std::vector<lt::Heuristic>& found, const Gemm& g) {
    const int64_t rows = g.batch > 1 ? (g.batch - 1) * g.stride_c + g.m * g.ldc : g.m * g.ldc;
    const Trial trial(device, static_cast<uint64_t>(rows) * static_cast<uint64_t>(dtype_bytes(g.c_dtype)));
    if (!trial.result) return 0;  // no room for a second result: the first guess is good too
    std::vector<float> best(found.size(), INFINITY);
    for (int round = 0; round <= kRounds; ++round)
      for (size_t i = 0; i < found.size(); ++i) {
        check(cudaEventRecord(trial.start, device.stream), "timing a product");
        if (launch(device, plan, found[i].algorithm, found[i].workspace, g, trial.result) != 0) continue;
        check(cudaEventRecord(trial.stop, device.stream), "timing a product");
        check(cudaEventSynchronize(trial.stop), "timing a product");
        float ms = 0;
        check(cudaEventElapsedTime(&ms, trial.start, trial.stop), "timing a product");
        if (round > 0) best[i] = std::min(best[i], ms);  // the first is for the caches
      }
    const size_t first = static_cast<size_t>(std::min_element(best.begin(), best.end()) - best.begin());
    return best[first] < best[0] * kClearly ? first : 0;
  }

  Plan& plan_for(gsa_device& device, const Gemm& g) {
    const Key key = key_of(g);
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    Plan plan;
    try {
      describe(plan, g);
      choose(device, plan, g);
    } catch (...) {
      const lt::Functions& f = lt::functions();
      if (plan.desc) f.desc_destroy(plan.desc);
      for (lt::Layout layout : {plan.a, plan.b, plan.c})
        if (layout) f.layout_destroy(layout);
      throw;
    }
    return plans_.emplace(key, plan).first->second;
  }

  std::mutex mutex_;
  lt::Handle handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

Context& context(gsa_device& device) {
  static std::mutex mutex;
  static auto* const contexts = new std::map<int, std::unique_ptr<Context>>();
  std::lock_guard<std::mutex> lock(mutex);
  auto& slot = (*contexts)[device.index];
  if (!slot) slot = std::make_unique<Context>(device);
  return *slot;
}

}  // namespace

void gemm(gsa_device& device, const Gemm& call) {
  if (call.m == 0 || call.n == 0 || call.batch == 0) return;
  context(device).run(device, call);
}

}  // namespace gsa::cuda
