#include "isa.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace lt {
namespace {

std::vector<Isa> detect() {
  std::vector<Isa> isas{Isa::baseline};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    isas.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      isas.push_back(Isa::avx512);
  }
#endif
  return isas;
}

const std::vector<Isa>& machine_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa parse(const std::string& name) {
  if (name.empty()) return machine_isas().back();
  std::string names;
  for (Isa isa : machine_isas()) {
    if (isa_name(isa) == name) return isa;
    names += (names.empty() ? "" : ", ") + isa_name(isa);
  }
  throw std::invalid_argument("LT_NAS_EXT_ISA: got '" + name + "'; this machine runs " + names);
}

std::atomic<Isa>& choice() {
  static std::atomic<Isa> isa{[] {
    const char* forced = std::getenv("LT_NAS_EXT_ISA");
    return parse(forced ? forced : "");
  }()};
  return isa;
}

}  // namespace

Isa active_isa() { return choice().load(std::memory_order_relaxed); }

Isa isa_filled_by(int64_t bytes) {
  const Isa best = active_isa();
  if (best == Isa::avx512 && bytes % 64 == 0) return Isa::avx512;
  return best != Isa::baseline && bytes % 32 == 0 ? Isa::avx2 : Isa::baseline;
}

void set_isa(const std::string& name) { choice().store(parse(name)); }

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (Isa isa : machine_isas()) names.push_back(isa_name(isa));
  return names;
}

long last_level_cache_bytes() {
  static const long bytes = [] {
    for (int level : {_SC_LEVEL4_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE}) {
      const long size = sysconf(level);
      if (size > 0) return size;
    }
    return 32L << 20;
  }();
  return bytes;
}

}  // namespace lt
