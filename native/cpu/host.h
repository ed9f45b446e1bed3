// What the machine and the container around this process allow.
#pragma once

#include <cstdint>
#include <string>

namespace gsa::cpu {

// Processors in this process' affinity mask, further limited by the CPU quota of its control group; at
// least 1.
int available_processors();

// FLASH_GSA_THREADS, else available_processors(). A malformed variable counts as absent here;
// check_environment() is what reports it.
int default_thread_count();

// Throws OpError naming the FLASH_GSA_* variable that the runtime cannot use.
void check_environment();

// Physical memory, or the memory limit of the control group where that is smaller.
uint64_t memory_limit_bytes();

// What could be allocated now without swapping or meeting the OOM killer (an estimate by the system).
uint64_t available_memory_bytes();

// "Intel(R) Xeon(R) Platinum 8481C".
std::string processor_name();

}  // namespace gsa::cpu
