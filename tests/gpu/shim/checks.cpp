// What is checked in a checked build. Sources compiled with -fsanitize=thread call __tsan_readN and __tsan_writeN
// before each access; these are ours, and know blocks, threads and barriers. They find accesses out of bounds or
// misaligned, reads of memory that nothing wrote, and races; and they count the sectors of 32 bytes and the passes over
// the banks of shared memory that the lanes of a warp need together.
#include "runtime.h"
#include <algorithm>
#include <dlfcn.h>
#include <map>

namespace {
constexpr unsigned UNWRITTEN = 0x7fc0deadu;  // what `empty` fills memory with: see kernels.py
struct Access {
  unsigned block = ~0u;
  int thread = -1;
  unsigned epoch = 0, warp_epoch = 0;
  bool atomic = false;
};
struct Shadow {  // of `unit` bytes: the last write, the last two threads that read since, whether it was ever written
  Access write, read, read2;
  bool written = false;
};
struct Range {
  uintptr_t first, end;
  unsigned unit;
  bool shared;
  std::string name;
  std::vector<Shadow> shadow;
};
struct Request {
  uint64_t warp_and_visit;
  void* pc;
  uintptr_t address;
  int size;
  bool shared, write;
};
struct Site {  // an access in the code: sums over the requests of all warps
  long requests = 0, lanes = 0, sectors = 0, bytes = 0, passes = 0;
  bool shared = false, write = false;
};
std::vector<Range> ranges;  // memory that kernels may touch, sorted
std::vector<Request> requests;
std::map<void*, Site> sites;
bool measuring;

Range* range_of(uintptr_t address) {
  auto next = std::upper_bound(ranges.begin(), ranges.end(), address,
                               [](uintptr_t value, const Range& range) { return value < range.first; });
  if (next == ranges.begin()) return nullptr;
  Range& range = *std::prev(next);
  return address < range.end ? &range : nullptr;
}

bool is_ordered(const Access& before, const Access& now) {  // by a barrier; blocks never are
  if (before.thread < 0) return true;
  if (before.block != now.block) return false;
  if (before.thread == now.thread || before.epoch != now.epoch) return true;
  return before.thread >> 5 == now.thread >> 5 && before.warp_epoch != now.warp_epoch;
}

bool is_geometry(uintptr_t address) {  // threadIdx and its like
  auto within = [&](auto& variable) { return address - (uintptr_t)&variable < sizeof variable; };
  return within(threadIdx) || within(blockIdx) || within(blockDim) || within(gridDim);
}

void check_word(Range& range, uintptr_t word, bool write, Access now) {
  Shadow& shadow = range.shadow[(word - range.first) / range.unit];
  size_t offset = word - range.first;
  const char *name = range.name.c_str(), *access = write ? "write" : "read";
  if (range.shared) {  // what an earlier block left there is nothing to this one
    if (shadow.write.thread >= 0 && shadow.write.block != now.block) shadow.write = Access(), shadow.written = false;
    if (shadow.read.thread >= 0 && shadow.read.block != now.block) shadow.read = shadow.read2 = Access();
  }
  if (!write && !shadow.written) fail("read of what nothing wrote: %s + %zu", name, offset);
  if (!is_ordered(shadow.write, now) && !(now.atomic && shadow.write.atomic))
    fail("race: %s of %s + %zu, which thread %d of block %u wrote", access, name, offset, shadow.write.thread,
         shadow.write.block);
  for (const Access& read : {shadow.read, shadow.read2})
    if (write && !is_ordered(read, now) && !(now.atomic && read.atomic))
      fail("race: write of %s + %zu, which thread %d of block %u read", name, offset, read.thread, read.block);
  if (write) {
    shadow.write = now;
    shadow.written = true;
    shadow.read = shadow.read2 = Access();
  } else {
    if (shadow.read.thread != now.thread || shadow.read.block != now.block) shadow.read2 = shadow.read;
    shadow.read = now;
  }
}

long distinct(std::vector<uintptr_t>& values) {
  std::sort(values.begin(), values.end());
  return std::unique(values.begin(), values.end()) - values.begin();
}
}  // namespace

void touch(uintptr_t address, int size, bool write, bool atomic, void* pc, bool aligned) {
  if (current < 0 || on_stack(address) || is_geometry(address)) return;
  Range* range = range_of(address);
  Dl_info info;
  if (!range && !write && dladdr((void*)address, &info)) return;  // a table among the constants of the source
  if (!range || address + size > range->end) {
    std::string near = "no argument";
    for (const Range& other : ranges) {
      if (address + 65536 < other.first || address >= other.end + 65536) continue;
      near = other.name + (address < other.first ? " - " : " + ");
      near += std::to_string(address < other.first ? other.first - address : address - other.first);
    }
    fail("%s of %d bytes out of bounds: %s", write ? "write" : "read", size, near.c_str());
    leave();
  }
  if (aligned && address % size) {
    fail("misaligned %s of %d bytes: %s + %zu", write ? "write" : "read", size, range->name.c_str(),
         (size_t)(address - range->first));
    leave();
  }
  Thread& thread = threads[current];
  if (measuring)
    requests.push_back({(uint64_t)(current >> 5) << 32 | thread.visits[pc]++, pc, address, size, range->shared, write});
  Access now{current_block, current, thread.epoch, thread.warp_epoch, atomic};
  for (uintptr_t word = address - (address - range->first) % range->unit; word < address + size; word += range->unit)
    check_word(*range, word, write, now);
  if (has_failed()) leave();
}

void begin_checks() {
  for (Range& range : ranges) {
    range.shadow.assign((range.end - range.first + range.unit - 1) / range.unit, Shadow());
    if (range.shared) continue;
    for (size_t i = 0; i < range.shadow.size(); i++) {
      unsigned word = 0;
      if (range.unit == 4 && (i + 1) * 4 <= range.end - range.first) memcpy(&word, (char*)range.first + 4 * i, 4);
      range.shadow[i].written = word != UNWRITTEN;
    }
  }
}

void end_of_block() {  // accesses of one place in the code, by one warp, for the same time, are one request
  std::stable_sort(requests.begin(), requests.end(), [](const Request& a, const Request& b) {
    return a.pc != b.pc ? a.pc < b.pc : a.warp_and_visit < b.warp_and_visit;
  });
  for (size_t i = 0; i < requests.size();) {
    std::vector<uintptr_t> sectors;
    std::map<int, std::vector<uintptr_t>> banks;
    Request& first = requests[i];
    Site& site = sites[first.pc];
    auto is_of_it = [&](Request& lane) { return lane.pc == first.pc && lane.warp_and_visit == first.warp_and_visit; };
    for (; i < requests.size() && is_of_it(requests[i]); i++) {
      Request& lane = requests[i];
      uintptr_t last = lane.address + lane.size - 1;
      site.lanes++;
      site.bytes += lane.size;
      site.shared = lane.shared;
      site.write = lane.write;
      for (uintptr_t sector = lane.address / 32; sector <= last / 32; sector++) sectors.push_back(sector);
      for (uintptr_t word = lane.address / 4; word <= last / 4; word++) banks[word & 31].push_back(word);
    }
    long passes = 0;
    for (auto& bank : banks) passes = std::max(passes, distinct(bank.second));
    site.requests++;
    site.sectors += distinct(sectors);
    site.passes += passes;
  }
  requests.clear();
}

extern "C" {
void cpu_check(int on) { checking = on; }
void cpu_measure(int on) { measuring = on; }
void cpu_clear_checks() {
  ranges.clear();
  sites.clear();
  requests.clear();
}

// Memory that kernels may touch, told apart in units of 1, 2 or 4 bytes.
void cpu_allow(uintptr_t first, size_t size, int unit, int shared, const char* name) {
  Range range{first, first + size, (unsigned)unit, (bool)shared, name, {}};
  auto later = [](uintptr_t value, const Range& other) { return value < other.first; };
  ranges.insert(std::upper_bound(ranges.begin(), ranges.end(), first, later), range);
}

int cpu_site(int number, long* figures) {
  if (number >= (int)sites.size()) return 0;
  const Site& site = std::next(sites.begin(), number)->second;
  long values[] = {site.requests, site.lanes, site.sectors, site.bytes, site.passes, site.shared, site.write};
  memcpy(figures, values, sizeof values);
  return 1;
}

void cpu_atomic(const void* address, int size) {
  if (checking) touch((uintptr_t)address, size, true, true, __builtin_return_address(0));
}

#define ACCESS(name, n, write, aligned)                                                       \
  void __tsan_##name##n(void* address) {                                                      \
    touch((uintptr_t)address, n, write, false, __builtin_return_address(0), aligned);         \
  }
#define ACCESSES(n)                                                              \
  ACCESS(read, n, false, true)                                                   \
  ACCESS(write, n, true, true)                                                   \
  ACCESS(unaligned_read, n, false, false)                                        \
  ACCESS(unaligned_write, n, true, false)                                        \
  ACCESS(volatile_read, n, false, true)                                          \
  ACCESS(volatile_write, n, true, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* address, size_t n) {
  touch((uintptr_t)address, n, false, false, __builtin_return_address(0), false);
}
void __tsan_write_range(void* address, size_t n) {
  touch((uintptr_t)address, n, true, false, __builtin_return_address(0), false);
}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  touch((uintptr_t)from, n, false, false, __builtin_return_address(0), false);
  touch((uintptr_t)to, n, true, false, __builtin_return_address(0), false);
  return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  touch((uintptr_t)to, n, true, false, __builtin_return_address(0), false);
  return memset(to, value, n);
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
