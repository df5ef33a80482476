// Which instruction set the CPU kernels use, chosen at run time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lt {

enum class Isa { baseline, avx2, avx512 };

// The best the machine has, unless LT_NAS_EXT_ISA or set_isa() says otherwise.
Isa active_isa();
std::string isa_name(Isa isa);
// Every one this machine can run, the best last.
std::vector<std::string> supported_isas();
// "" returns to the best; an unknown or unsupported name throws std::invalid_argument that lists the supported ones.
void set_isa(const std::string& name);

// The widest instruction set, no wider than the active one, whose registers rows of so many bytes fill.
Isa isa_filled_by(int64_t bytes);

// Bytes of the last-level cache: results larger than it bypass it.
long last_level_cache_bytes();

}  // namespace lt
