// Which instruction set the CPU kernels use. Chosen once per process: the best that the processor has, or the
// one named by the environment variable FLASH_GSA_ISA (generic, avx2, avx512), which exists for tests and for
// bug reports.
#pragma once

#include <string>

namespace gsa::cpu {

enum class Isa { generic, avx2, avx512 };

Isa isa();
const char* isa_name();

// Empty, or one sentence that says why FLASH_GSA_ISA was not followed; shown in the device's information.
const std::string& isa_problem();

}  // namespace gsa::cpu
