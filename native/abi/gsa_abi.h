/* The one contract between the N-API addon and a compute backend (CPU: linked in; CUDA: gsa_cuda.so, loaded
 * at run time). Plain C, <stdint.h> only. No exception crosses it, no allocation changes owner across it, and
 * every failure comes back as a gsa_status with a message in the caller's gsa_error. */
#ifndef GSA_ABI_H_
#define GSA_ABI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by one whenever a struct, an enum value or the order of ops.def changes: a stale gsa_cuda.so is
 * refused. */
#define GSA_ABI_VERSION 10u
#define GSA_MAX_DIMS 6
#define GSA_MAX_MESSAGE 512

typedef enum gsa_dtype {
  GSA_FLOAT32 = 0,
  GSA_BFLOAT16 = 1,
  GSA_INT32 = 2,
  GSA_INT64 = 3,
  GSA_FLOAT8_E4M3 = 4, /* largest 448, no infinity; for products only */
  GSA_FLOAT8_E5M2 = 5, /* largest 57344 */
  GSA_INT16 = 6,
} gsa_dtype;

typedef enum gsa_status {
  GSA_OK = 0,
  GSA_INVALID_ARGUMENT = 1, /* shape, dtype, range: the caller can mend it */
  GSA_UNSUPPORTED = 2,      /* right arguments that this backend has no code for */
  GSA_OUT_OF_MEMORY = 3,    /* the call had no effect; smaller work may succeed */
  GSA_DEVICE_LOST = 4,      /* sticky device error: every later call on the device says so */
  GSA_INTERNAL = 5,         /* a bug in the backend or in a library under it */
} gsa_status;

typedef struct gsa_error {
  char message[GSA_MAX_MESSAGE]; /* UTF-8, zero-terminated; written only when the status is not GSA_OK */
} gsa_error;

/* A view: shape and strides in elements, data already at the first element. Strides are >= 0. */
typedef struct gsa_tensor {
  void* data;
  int64_t shape[GSA_MAX_DIMS];
  int64_t strides[GSA_MAX_DIMS];
  int32_t dtype;
  int32_t ndim; /* 0 is a scalar: one element */
} gsa_tensor;

/* Arguments of one op, in the order of its line in ops/ops.def. An optional tensor that is absent is NULL. A
 * starred group ("param*") stands for n entries; with several starred names the groups follow one another
 * (all params, then all moments, ...), each n long. */
typedef struct gsa_args {
  const gsa_tensor* const* in;
  const gsa_tensor* const* out;
  const double* attr;
  int32_t n_in;
  int32_t n_out;
  int32_t n_attr;
  const char* op; /* the op's name in ops.def, for reports */
} gsa_args;

typedef struct gsa_device gsa_device; /* opened by the backend; owns its stream, allocator and libraries */
typedef struct gsa_event gsa_event;   /* a point in a device's work */
typedef struct gsa_read gsa_read;     /* a copy to the host under way */

typedef gsa_status (*gsa_op_fn)(gsa_device* device, const gsa_args* args, gsa_error* error);

typedef struct gsa_device_info {
  char name[128];
  uint64_t total_bytes; /* device memory (CPU: physical memory) */
  uint64_t free_bytes;
  int32_t compute_major; /* CUDA compute capability; 0 on CPU */
  int32_t compute_minor;
  int32_t units;    /* CPU: threads in use; CUDA: multiprocessors */
  char detail[256]; /* one line: instruction set and BLAS, or driver and runtime versions */
} gsa_device_info;

typedef struct gsa_memory_stats {
  uint64_t current_bytes; /* handed out and not freed */
  uint64_t peak_bytes;    /* largest current_bytes since the last reset */
  uint64_t cached_bytes;  /* held by the allocator, not handed out */
  uint64_t allocations;   /* number of alloc calls that succeeded */
} gsa_memory_stats;

typedef enum gsa_copy_kind {
  GSA_HOST_TO_DEVICE = 0,
  GSA_DEVICE_TO_HOST = 1,
  GSA_DEVICE_TO_DEVICE = 2
} gsa_copy_kind;

typedef struct gsa_backend {
  uint32_t abi_version;
  uint32_t n_ops;
  const char* name;     /* "cpu", "cuda" */
  const gsa_op_fn* ops; /* n_ops entries in ops.def order; NULL where this backend has no code */
  gsa_status (*device_count)(int32_t* count, gsa_error* error);
  gsa_status (*device_info)(int32_t index, gsa_device_info* info, gsa_error* error);
  gsa_status (*device_open)(int32_t index, gsa_device** device,
                            gsa_error* error); /* the same device each time */
  gsa_status (*alloc)(gsa_device* device, uint64_t bytes, void** ptr, gsa_error* error);
  void (*free)(gsa_device* device, void* ptr, uint64_t bytes); /* any thread; NULL ptr is allowed */
  /* Ordered after all work submitted before. HOST_TO_DEVICE returns when the host memory may be reused,
   * DEVICE_TO_HOST when the data is there. */
  gsa_status (*copy)(gsa_device* device, void* dst, const void* src, uint64_t bytes, gsa_copy_kind kind,
                     gsa_error* error);
  gsa_status (*synchronize)(gsa_device* device, gsa_error* error);
  gsa_status (*memory_stats)(gsa_device* device, gsa_memory_stats* stats, int32_t reset_peak,
                             gsa_error* error);
  /* Settings by name, for example "threads" (CPU). An unknown name is GSA_INVALID_ARGUMENT that lists the
   * known. */
  gsa_status (*set_option)(gsa_device* device, const char* name, double value, gsa_error* error);
  gsa_status (*get_option)(gsa_device* device, const char* name, double* value, gsa_error* error);
  /* A new event at the end of all work submitted before. */
  gsa_status (*event_record)(gsa_device* device, gsa_event** event, gsa_error* error);
  gsa_status (*event_wait)(gsa_device* device, gsa_event* event, gsa_error* error);
  /* Milliseconds of the device's own clock; waits for both. */
  gsa_status (*event_elapsed)(gsa_device* device, gsa_event* from, gsa_event* to, double* milliseconds,
                              gsa_error* error);
  void (*event_free)(gsa_device* device, gsa_event* event); /* any thread */
  /* A copy to the host that is not waited for: what `src` holds after all work submitted before, whatever
   * happens to `src` afterwards. Each read_start that succeeded needs one read_end, from any thread: it
   * waits until the data is in `dst`, which must stay until then, and frees the read. */
  gsa_status (*read_start)(gsa_device* device, void* dst, const void* src, uint64_t bytes, gsa_read** read,
                           gsa_error* error);
  gsa_status (*read_end)(gsa_device* device, gsa_read* read, gsa_error* error);
} gsa_backend;

/* Exported by every backend. NULL when `abi_version` is not the one it was built with. */
typedef const gsa_backend* (*gsa_backend_get_fn)(uint32_t abi_version);
#define GSA_BACKEND_GET_SYMBOL "gsa_backend_get"

#ifdef __cplusplus
}
#endif
#endif /* GSA_ABI_H_ */
