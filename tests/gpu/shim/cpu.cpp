// The scheduler. A block's threads run one after another on one fiber as long as none of them waits; only a thread that
// reaches a barrier keeps its stack, and the next one takes another fiber. So a kernel without barriers costs a call of
// a function for each thread.
#include "runtime.h"
#include <algorithm>
#include <cstdarg>
#include <random>
#include <sys/mman.h>
#include <ucontext.h>

extern "C" {
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
}
std::vector<Thread> threads;
int current = -1;
unsigned current_block;
bool checking;

namespace {
constexpr size_t STACK = 1 << 16, PAGE = 4096;
struct Fiber {
  ucontext_t context;
  char* stack;
  bool started;
  jmp_buf here;
};
std::vector<Fiber> fibers;
std::vector<int> idle;   // fibers without a thread
std::vector<int> order;  // of the threads
size_t next_fresh;       // the first place in `order` whose thread has not begun
jmp_buf scheduler;
void (*body)(void*);
void* body_data;
const char* kernel_name = "";
alignas(64) char laid_out[32][32][64], taken[32][32][64];  // warp, lane: what a lane deposits, and all may read
unsigned arrived[32];                                      // lanes of each warp that took part in the last exchange
bool may_leave;  // threads may leave the kernel before a barrier: GPUs since Volta bear it, and CuPy relies on that
int order_mode;                                            // 0 forward, 1 backward, else the seed of a shuffle
std::string error;

void begin(int thread) {
  current = thread;
  threadIdx = threads[thread].index;
}

void work() {  // what a fiber does: one thread after another, as long as there is one that has not begun
  for (;;) {
    Thread& thread = threads[current];
    body(body_data);
    thread.state = Over;
    if (!thread.copies.empty()) fail("cp.async: a copy was never waited for");
    int fiber = thread.fiber;
    if (next_fresh < order.size()) {
      int next = order[next_fresh++];
      threads[next].fiber = fiber;
      threads[next].state = Ready;
      begin(next);
      continue;
    }
    idle.push_back(fiber);
    if (!_setjmp(fibers[fiber].here)) _longjmp(scheduler, 1);
  }
}

void add_fiber() {
  Fiber fiber{};
  fiber.stack = (char*)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                            -1, 0);
  mprotect(fiber.stack, PAGE, PROT_NONE);
  fibers.push_back(fiber);
  idle.push_back(fibers.size() - 1);
}

void resume(int number) {  // until it waits or ends
  Thread& thread = threads[number];
  if (_setjmp(scheduler)) return;
  if (thread.state != Fresh) {
    thread.state = Ready;
    begin(number);
    _longjmp(thread.here, 1);
  }
  if (idle.empty()) add_fiber();
  thread.fiber = idle.back();
  idle.pop_back();
  thread.state = Ready;
  begin(number);
  Fiber& fiber = fibers[thread.fiber];
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack + PAGE;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, work, 0);
  setcontext(&fiber.context);
}

void wait(State state) {
  Thread& thread = threads[current];
  thread.state = state;
  if (!_setjmp(thread.here)) _longjmp(scheduler, 1);
}

bool release_warp(int number) {  // if all lanes that it waits for have come; those that left the kernel count as such
  int first = number & ~31, warp = number >> 5, count = std::min<int>(32, threads.size() - first);
  unsigned mask = threads[number].mask, lanes = 0, epoch = 0;
  bool orders = threads[number].orders;
  for (int lane = 0; lane < count; lane++) {
    Thread& thread = threads[first + lane];
    if (!(mask >> lane & 1) || thread.state == Over) continue;
    if (thread.state != AtWarp || thread.mask != mask) return false;
    lanes |= 1u << lane;
    epoch = std::max(epoch, thread.warp_epoch);
    orders = orders && thread.orders;
  }
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    if (lanes >> lane & 1) {
      memcpy(taken[warp][lane], laid_out[warp][lane], 64);
      threads[first + lane].state = Ready;
      if (orders) threads[first + lane].warp_epoch = epoch + 1;
    } else {
      memset(taken[warp][lane], 0, 64);
    }
  }
  arrived[warp] = (arrived[warp] & ~mask) | lanes;
  return true;
}

bool release_block() {  // if all threads stand at one barrier; false if that cannot come to be
  int waiting = 0, over = 0, at = -1, in_warp = -1, count = threads.size();
  for (int i = 0; i < count; i++) {
    over += threads[i].state == Over;
    if (threads[i].state == AtBlock) waiting++, at = i;
    if (threads[i].state == AtWarp) in_warp = i;
  }
  if (over == count) return false;
  if (waiting + over < count) {
    fail("deadlock: %d threads wait for their warp (thread %d for the lanes %08x), %d for the block, %d have left",
         count - waiting - over, in_warp, threads[in_warp].mask, waiting, over);
    return false;
  }
  if (over && !may_leave) {
    fail("__syncthreads of line %d: %d threads have left the kernel", threads[at].line, over);
    return false;
  }
  for (Thread& thread : threads) {
    if (thread.state == Over) continue;
    if (thread.line != threads[at].line || thread.file != threads[at].file) {
      fail("divergent __syncthreads: lines %d and %d", thread.line, threads[at].line);
      return false;
    }
    thread.state = Ready;
    thread.epoch++;
  }
  return true;
}

void run_block() {
  next_fresh = 0;
  for (Thread& thread : threads) {
    thread.state = Fresh;
    thread.epoch = thread.warp_epoch = 0;
    thread.group = 0;
    thread.copies.clear();
    thread.visits.clear();
  }
  for (;;) {
    while (next_fresh < order.size()) {
      resume(order[next_fresh++]);
      if (!error.empty()) return;
    }
    bool ran = false;
    for (int i : order) {
      if (threads[i].state != Ready) continue;
      resume(i);
      ran = true;
      if (!error.empty()) return;
    }
    if (ran) continue;
    // All that were released have read what they exchanged before others are released.
    for (int i : order)
      if (threads[i].state == AtWarp && release_warp(i)) ran = true;
    if (!ran && !release_block()) return;
  }
}

std::string unlaunchable(dim3 grid, dim3 block) {  // limits of every GPU; a null or too large launch is an error there
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return "the grid must have 1 to 2**31 - 1, 65535, 65535 blocks";
  if (!block.x || !block.y || !block.z || block.z > 64 || (uint64_t)block.x * block.y * block.z > 1024)
    return "a block must have 1 to 1024 threads";
  return "";
}
}  // namespace

bool on_stack(uintptr_t address) {
  uintptr_t stack = (uintptr_t)fibers[threads[current].fiber].stack;
  return address >= stack && address < stack + PAGE + STACK;
}

void fail(const char* format, ...) {
  if (!error.empty()) return;
  char text[512], place[160];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  snprintf(place, sizeof place, " [%s, block (%u, %u, %u), thread (%u, %u, %u)]", kernel_name, blockIdx.x, blockIdx.y,
           blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  error = std::string(text) + place;
}

bool has_failed() { return !error.empty(); }

void leave() { _longjmp(scheduler, 1); }

extern "C" {
void cpu_may_leave(int on) { may_leave = on; }
void cpu_order(int mode) { order_mode = mode; }
const char* cpu_error() { return error.empty() ? nullptr : error.c_str(); }
void cpu_clear_error() { error.clear(); }

void cpu_block_barrier(const char* file, int line) {
  threads[current].file = file;
  threads[current].line = line;
  wait(AtBlock);
}

const char* cpu_warp_exchange(unsigned mask, const void* mine, int size) {
  Thread& thread = threads[current];
  int lane = current & 31, warp = current >> 5;
  if (!(mask >> lane & 1)) {
    fail("warp: lane %d is not in its own mask %08x", lane, mask);
    leave();
  }
  if (size) memcpy(laid_out[warp][lane], mine, size);
  thread.mask = mask;
  thread.orders = size == 0;
  wait(AtWarp);
  return taken[current >> 5][0];
}

void cpu_expect_lane(int lane) {
  if (threads[current].mask & arrived[current >> 5] & 1u << lane) return;
  fail("warp: lane %d is read, which did not take part", lane);
  leave();
}

void cpu_copy_later(void* to, const void* from, int size, int zeros) {
  Thread& thread = threads[current];
  if (checking && !zeros) touch((uintptr_t)from, size, false, false, __builtin_return_address(0));
  thread.copies.push_back({to, from, size, zeros, thread.group});
}

void cpu_copy_commit() { threads[current].group++; }

void cpu_copy_wait(int left) {  // all but the `left` latest groups arrive
  Thread& thread = threads[current];
  for (Copy& copy : thread.copies) {
    if (copy.group >= thread.group - left) continue;
    if (checking) touch((uintptr_t)copy.to, copy.size, true, false, __builtin_return_address(0));
    if (copy.zeros)
      memset(copy.to, 0, copy.size);
    else
      memcpy(copy.to, copy.from, copy.size);
    copy.size = 0;
  }
  auto done = [](const Copy& copy) { return !copy.size; };
  thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), done), thread.copies.end());
}

void cpu_trap(const char* what) {
  fail("%s", what);
  leave();
}

void cpu_run(dim3 grid, dim3 block, void (*function)(void*), void* data, const char* name) {
  if (!error.empty()) return;
  kernel_name = name;
  body = function;
  body_data = data;
  blockDim = block;
  gridDim = grid;
  if (std::string problem = unlaunchable(grid, block); !problem.empty()) {
    fail("%s, but got (%u, %u, %u) of (%u, %u, %u)", problem.c_str(), grid.x, grid.y, grid.z, block.x, block.y,
         block.z);
    return;
  }
  size_t count = (size_t)block.x * block.y * block.z, blocks = (size_t)grid.x * grid.y * grid.z;
  threads.resize(count);
  order.resize(count);
  for (size_t i = 0; i < count; i++) {
    order[i] = i;
    threads[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
  }
  std::vector<unsigned> turns(blocks);
  for (size_t i = 0; i < blocks; i++) turns[i] = i;
  std::mt19937 random(order_mode);
  if (order_mode == 1) std::reverse(turns.begin(), turns.end()), std::reverse(order.begin(), order.end());
  if (order_mode > 1) std::shuffle(turns.begin(), turns.end(), random);
  if (checking) begin_checks();
  for (unsigned turn : turns) {
    if (order_mode > 1) std::shuffle(order.begin(), order.end(), random);
    blockIdx = {turn % grid.x, turn / grid.x % grid.y, turn / grid.x / grid.y};
    current_block = turn;
    run_block();
    if (!error.empty()) {  // fibers of threads that wait are of no use any more
      for (Fiber& fiber : fibers) munmap(fiber.stack, STACK + PAGE);
      fibers.clear();
      idle.clear();
      break;
    }
    if (checking) end_of_block();
  }
  current = -1;
}
}
