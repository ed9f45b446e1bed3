// Arguments of the embedding ops, shared by every backend.
#pragma once

#include <cstdint>

#include "../../abi/args.h"

namespace gsa::lookup {

struct Embedding {
  int64_t n, vocabulary, width;
  int32_t dtype;       // of weight and y
  const int32_t* ids;  // [n], each in 0 .. vocabulary - 1
};

inline Embedding read_common(const gsa_tensor& table, const char* table_name, const gsa_tensor& ids,
                             const gsa_tensor& rows, const char* rows_name) {
  expect_ndim(table, 2, table_name);
  expect_ndim(ids, 1, "ids");
  expect_dense(ids, GSA_INT32, {ids.shape[0]}, "ids");
  expect_floating(table, table_name);
  expect_contiguous(table, table_name);
  expect_dense(rows, table.dtype, {ids.shape[0], table.shape[1]}, rows_name);
  return {ids.shape[0], table.shape[0], table.shape[1], table.dtype, static_cast<const int32_t*>(ids.data)};
}

// embedding_fwd: weight [vocabulary, width], ids [n] -> y [n, width]
inline Embedding read_embedding_fwd(const Args& args) {
  return read_common(args.in(0), "weight", args.in(1), args.out(0), "y");
}

// embedding_bwd: dy [n, width], ids [n] -> dweight [vocabulary, width], written whole
inline Embedding read_embedding_bwd(const Args& args) {
  return read_common(args.out(0), "dweight", args.in(1), args.in(0), "dy");
}

// For who can read the ids: checked before anything is written.
inline void check_ids(const Embedding& p) {
  for (int64_t i = 0; i < p.n; ++i)
    if (p.ids[i] < 0 || p.ids[i] >= p.vocabulary)
      fail(GSA_INVALID_ARGUMENT, "Expected ids from 0 to %lld but received %d at position %lld",
           static_cast<long long>(p.vocabulary - 1), p.ids[i], static_cast<long long>(i));
}

}  // namespace gsa::lookup
