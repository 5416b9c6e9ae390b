// What the scheduler (cpu.cpp) and the checks (checks.cpp) know of each other.
#pragma once
#include "cpu.h"
#undef __shared__
#undef __constant__
#include <csetjmp>
#include <string>
#include <unordered_map>
#include <vector>

enum State : unsigned char { Fresh, Ready, AtBlock, AtWarp, Over };
struct Copy {  // of cp.async, until it is waited for
  void* to;
  const void* from;
  int size, zeros, group;
};
struct Thread {
  jmp_buf here;
  int fiber;
  State state;
  unsigned mask;  // of the lanes that it waits for
  bool orders;    // whether that wait orders memory
  const char* file;
  int line;  // of the barrier that it waits at
  uint3 index;
  unsigned epoch, warp_epoch;  // how many barriers of the block, and of the warp, it has passed
  int group;                   // of the copies that it commits next
  std::vector<Copy> copies;
  std::unordered_map<void*, unsigned> visits;  // of each access in the code: requests of a warp are told apart by it
};
extern std::vector<Thread> threads;  // of the block that runs
extern int current;                  // the thread that runs, -1 outside of kernels
extern unsigned current_block;       // its number in the grid
extern bool checking;

bool on_stack(uintptr_t address);            // of the current thread
void fail(const char* format, ...);          // remember the first error, with its place
bool has_failed();
[[noreturn]] void leave();                   // end the launch after an error
void touch(uintptr_t address, int size, bool write, bool atomic, void* pc, bool aligned = true);
void begin_checks();
void end_of_block();
