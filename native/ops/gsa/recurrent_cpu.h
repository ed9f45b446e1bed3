// One step of a gated state, the inner work of gsa_recurrent (recurrent.inl).
#pragma once

#include <cstdint>

namespace gsa::cpu {

// to = decay * from + row_write column_write^T, then for every reader r: out_r = scale * to^T read_r, on the
// columns [begin, end) of a [rows, columns] state. The decay belongs to the columns (key state) or to the
// rows (value state).
struct StateStep {
  int64_t rows, columns, begin, end;
  bool decay_by_column;
  const float* from;  // NULL: zeros. May be `to`
  float* to;
  const float* decay;         // [columns] or [rows]
  const float* row_write;     // [rows]
  const float* column_write;  // [columns]
  int64_t readers;
  const float* read;  // [readers, rows]
  float* out;         // [readers, columns]
  float scale;
};

}  // namespace gsa::cpu
