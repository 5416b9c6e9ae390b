// The CUDA runtime that CuPy calls: the device's properties, memory, copies. Streams, events and graphs: device.cpp.
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "device.h"

using namespace null;

namespace {
constexpr int POISON = 0xff;  // NaN as a float, -1 as an integer
std::map<char*, size_t> device_memory, pinned_memory;

const void* block_of(const std::map<char*, size_t>& blocks, const void* address) {
  auto next = blocks.upper_bound((char*)address);
  if (next == blocks.begin()) return nullptr;
  --next;
  return (char*)address < next->first + next->second ? next->first : nullptr;
}

bool inside(const void* address, size_t bytes) {  // of one block of the device
  const char* block = (const char*)block_of(device_memory, address);
  return block && (const char*)address + bytes <= block + device_memory.at((char*)block);
}

int allocate(std::map<char*, size_t>& blocks, void** address, size_t bytes, size_t alignment) {
  *address = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!*address) return failed(OutOfMemory);
  memset(*address, POISON, bytes);
  blocks[(char*)*address] = bytes;
  return 0;
}

int release(std::map<char*, size_t>& blocks, void* address) {
  if (!address) return 0;
  auto block = blocks.find((char*)address);
  if (block == blocks.end()) return failed(InvalidValue);
  drain_all();
  memset(address, POISON, block->second);
  blocks.erase(block);
  free(address);
  return 0;
}

int copy(void* to, const void* from, size_t bytes, int kind, void* stream) {
  static const char* names[] = {"h2h", "h2d", "d2h", "d2d"};
  bool to_device = inside(to, bytes), from_device = inside(from, bytes);
  if (kind == cudaMemcpyDefault) kind = from_device * 2 + to_device;
  if ((kind & 1) != to_device || (kind >> 1) != from_device) return failed(InvalidValue);
  const void* host = from_device ? to : from;
  if (kind != cudaMemcpyDeviceToDevice && !is_pinned(host)) {
    if (stream_of(stream)->capture) return refuse_waiting(stream_of(stream), "a copy of memory that is not pinned");
    if (from_device) {  // returns when the copy is complete
      int code = submit(stream, names[kind], std::to_string(bytes), [=] { memcpy(to, from, bytes); });
      drain(stream_of(stream), stream_of(stream)->submitted);
      return code;
    }
    std::string staged((const char*)from, bytes);
    return submit(stream, names[kind], std::to_string(bytes), [=] { memcpy(to, staged.data(), bytes); });
  }
  return submit(stream, names[kind], std::to_string(bytes), [=] { memmove(to, from, bytes); });
}

int fill(void* to, int value, size_t bytes, void* stream) {
  if (!inside(to, bytes)) return failed(InvalidValue);
  return submit(stream, "memset", std::to_string(bytes), [=] { memset(to, value, bytes); });
}
}  // namespace

bool null::is_pinned(const void* address) { return block_of(pinned_memory, address); }
bool null::is_on_device(const void* address, size_t bytes) { return inside(address, bytes); }

const char* null::device_name() {
  static char name[16] = {};
  const char* chosen = getenv("NULL_DEVICE");  // for tests of processes that share one
  snprintf(name, sizeof name, "%s", chosen ? chosen : std::to_string(getpid()).c_str());
  return name;
}

extern "C" {
// For the allocator's hook: undefined content, in the order of the stream. In a capture, the graph does it at each launch.
int null_poison(void* address, size_t bytes, void* stream) {
  LOCKED;
  if (idle || !inside(address, bytes)) return 0;
  return submit(stream, "poison", "", [=] { memset(address, POISON, bytes); }, false);
}
int null_is_capturing(void* stream) { return stream_of(stream)->capture != nullptr; }

const char* cudaGetErrorName(cudaError_t error) {
  switch ((int)error) {
    case Success: return "cudaSuccess";
    case InvalidValue: return "cudaErrorInvalidValue";
    case OutOfMemory: return "cudaErrorMemoryAllocation";
    case InvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case NotReady: return "cudaErrorNotReady";
    case CaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case CaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case CaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case CaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    default: return "cudaErrorNotSupported";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  switch ((int)error) {
    case CaptureUnsupported: return "operation not permitted when stream is capturing";
    case CaptureInvalidated: return "operation failed due to a previous error during capture";
    case CaptureUnjoined: return "stream capture is not joined";
    case CaptureImplicit: return "operation would make the legacy stream depend on a capturing blocking stream";
    default: return "an error of the null device";
  }
}
cudaError_t cudaGetLastError() { LOCKED; return (cudaError_t)last_error(); }
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return (cudaError_t)failed(device ? InvalidValue : 0); }
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch ((int)attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  strcpy(properties->name, "null device");
  properties->major = 9;
  properties->warpSize = 32;
  properties->multiProcessorCount = 132;
  properties->maxThreadsPerBlock = 1024;
  properties->sharedMemPerBlock = 49152;
  properties->totalGlobalMem = 80ull << 30;
  properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 0x7fffffff;
  properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
  snprintf(id, length, "%.15s", device_name());
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) { *value = 0; return cudaSuccess; }
cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  LOCKED;
  *available = 78ull << 30, *total = 80ull << 30;
  for (auto& block : device_memory) *available -= block.second;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** address, size_t bytes) {
  LOCKED;
  if (int code = refuse_unsafe("cudaMalloc")) return (cudaError_t)code;
  note("malloc", std::to_string(bytes));
  return (cudaError_t)allocate(device_memory, address, bytes, 512);
}
cudaError_t cudaFree(void* address) {
  LOCKED;
  if (int code = refuse_unsafe("cudaFree")) return (cudaError_t)code;
  return (cudaError_t)release(device_memory, address);
}
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  LOCKED;
  if (int code = refuse_unsafe("cudaHostAlloc")) return (cudaError_t)code;
  note("hostalloc", std::to_string(bytes));
  return (cudaError_t)allocate(pinned_memory, address, bytes, 4096);
}
cudaError_t cudaFreeHost(void* address) { LOCKED; return (cudaError_t)release(pinned_memory, address); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  LOCKED;
  *attributes = {};
  attributes->devicePointer = attributes->hostPointer = (void*)address;
  attributes->type = block_of(device_memory, address) ? cudaMemoryTypeDevice
                     : is_pinned(address)             ? cudaMemoryTypeHost
                                                      : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  LOCKED;
  if (int code = refuse_waiting(stream_of(nullptr), "cudaMemcpy")) return (cudaError_t)code;
  int code = copy(to, from, bytes, kind, nullptr);
  note("wait", "cudaMemcpy");
  drain(stream_of(nullptr), stream_of(nullptr)->submitted);
  return (cudaError_t)code;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  LOCKED;
  return (cudaError_t)copy(to, from, bytes, kind, stream);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { LOCKED; return (cudaError_t)fill(to, value, bytes, nullptr); }
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) { LOCKED; return (cudaError_t)fill(to, value, bytes, stream); }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  LOCKED;
  return (cudaError_t)submit(stream, "hostfunction", "", [=] { function(data); });
}
}
