// The CUDA driver that CuPy calls: contexts, and kernels. A module's image names a shared object ("HOST:path") whose
// functions NAME_cpu launch the kernels on the host; of any other image nothing runs.
#include <dlfcn.h>

#include <cstring>

#include "device.h"

using namespace null;

namespace {
struct Dim3 {
  unsigned x, y, z;
};
using Launcher = void (*)(Dim3 grid, Dim3 block, size_t shared, void** arguments);

struct Function {
  std::string name;
  Launcher launch;             // null: nothing runs
  std::vector<size_t> sizes;   // of the arguments
};

std::string described(const Function* function, Dim3 grid, Dim3 block) {
  auto text = [](Dim3 size) { return std::to_string(size.x) + "," + std::to_string(size.y) + "," + std::to_string(size.z); };
  return journaling() ? function->name + " " + text(grid) + " x " + text(block) : "";
}

// A function of the shim's scheduler (tests/gpu/shim), which was loaded before the first kernel.
template <class F>
F scheduler(const char* name) {
  return (F)dlsym(RTLD_DEFAULT, name);
}

void run(const Function* function, Dim3 grid, Dim3 block, size_t shared, void** arguments) {
  static auto check = scheduler<void (*)(int)>("cpu_check"), order = scheduler<void (*)(int)>("cpu_order");
  static auto may_leave = scheduler<void (*)(int)>("cpu_may_leave");
  static auto clear = scheduler<void (*)()>("cpu_clear_error");
  static auto error = scheduler<const char* (*)()>("cpu_error");
  clear(), check(0), order(0);
  may_leave(function->name.rfind("cupy_", 0) == 0);
  function->launch(grid, block, shared, arguments);
  may_leave(0);
  if (!error()) return;
  fprintf(stderr, "null device: %s\n", error());
  failed(LaunchFailure);
}

bool fits(Dim3 grid, Dim3 block) {
  bool empty = !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z;
  return !empty && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535 && block.z <= 64 &&
         (unsigned long long)block.x * block.y * block.z <= 1024;
}
}  // namespace

extern "C" {
int cuGetErrorName(int error, const char** name) {
  *name = error == InvalidValue ? "CUDA_ERROR_INVALID_VALUE" : error == CaptureImplicit ? "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"
          : error == 200        ? "CUDA_ERROR_INVALID_IMAGE" : error == 500 ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int, const char** text) { *text = "an error of the null device"; return 0; }
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuCtxGetCurrent(void** context) { *context = (void*)16; return 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxGetDevice(int* device) { *device = 0; return 0; }
int cuStreamGetCtx(void*, void** context) { *context = (void*)16; return 0; }

int cuModuleLoadData(void** module, const void* image) {
  LOCKED;
  note("module");
  *module = nullptr;
  if (strncmp((const char*)image, "HOST:", 5)) return 0;
  *module = dlopen((const char*)image + 5, RTLD_NOW | RTLD_LOCAL);
  if (*module) return 0;
  fprintf(stderr, "null device: %s\n", dlerror());
  return 200;
}
int cuModuleUnload(void*) { return 0; }  // work that is pending may still need it
int cuModuleGetFunction(void** function, void* module, const char* name) {
  LOCKED;
  auto* found = new Function{name, nullptr, {}};
  *function = found;
  if (!module) return 0;
  found->launch = (Launcher)dlsym(module, (found->name + "_cpu").c_str());
  auto sizes_of = (const size_t* (*)())dlsym(module, (found->name + "_sizes_of").c_str());
  if (!found->launch || !sizes_of) return 500;
  for (const size_t* size = sizes_of(); *size; size++) found->sizes.push_back(*size);
  return 0;
}
int cuModuleGetGlobal_v2(void*, size_t*, void*, const char*) { return 500; }

int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void* stream, void** arguments, void**) {
  LOCKED;
  auto* function = (Function*)handle;
  Dim3 grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  if (!fits(grid, block)) return failed(InvalidValue);
  std::string what = described(function, grid, block);
  if (idle || !function->launch) return submit(stream, "kernel", what, [] {});
  if (!late && !stream_of(stream)->capture)
    return submit(stream, "kernel", what, [=] { run(function, grid, block, shared, arguments); });
  std::vector<std::vector<char>> kept;  // the arguments as they are now
  for (size_t i = 0; i < function->sizes.size(); i++)
    kept.emplace_back((char*)arguments[i], (char*)arguments[i] + function->sizes[i]);
  return submit(stream, "kernel", what, [=]() mutable {
    std::vector<void*> pointers;
    for (auto& argument : kept) pointers.push_back(argument.data());
    run(function, grid, block, shared, pointers.data());
  });
}
int cuFuncGetAttribute(int* value, int, void*) { *value = 1024; return 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) { *blocks = 2; return 0; }
int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) { *grid = 132; *block = 256; return 0; }
}
