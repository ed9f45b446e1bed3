// The line of a sweep, cut on the device: gsa_sweep_line_sm90.cu.
#pragma once

#include <memory>

#include "../../cuda/kernel.cuh"
#include "params.h"
#include "sweep_line.h"

namespace gsa::sm90 {

// Packed documents, whose lengths are on the device only. NULL everywhere: every batch item is one sequence.
struct Documents {
  const int32_t* cu_seqlens;
  const int32_t* steps_before;  // [N + 1] of the documents before, one head; the last: all
  const int32_t* owner;         // [step] its document
};

// Counts the steps of the documents, where there are any.
class CountedDocuments {
 public:
  CountedDocuments(gsa_device& device, const slot_attention::Dims& d, const int32_t* cu_seqlens);
  const Documents& get() const { return documents_; }

 private:
  std::unique_ptr<cuda::Scratch> memory_;
  Documents documents_{};
};

// The walks of N sequences and `heads` heads, `group` of which share a key/value head.
struct Walks {
  Documents documents;
  int64_t T, N, heads, group;
  int64_t number() const { return N * heads; }
  int64_t steps_of_longest() const { return (T + kStep - 1) / kStep; }
  // Of all heads together; of documents at most so many, whatever the offsets are.
  int64_t steps() const { return heads * (documents.cu_seqlens ? T / kStep + N : N * steps_of_longest()); }
};

// The line of the sweeps of one op, whose walks are the same: cut once where their clusters are as many, too.
class Lines {
 public:
  explicit Lines(gsa_device& device) : device_(device) {}
  struct Cut {
    LineTable table;
    int* flags;  // zero, each time others
  };
  Cut cut(const Walks& walks, int clusters, int64_t flags);

 private:
  gsa_device& device_;
  std::unique_ptr<cuda::Scratch> memory_;
  LineTable table_{};
  int clusters_ = 0;
  int* flags_ = nullptr;
  int64_t flags_left_ = 0;
};

}  // namespace gsa::sm90
