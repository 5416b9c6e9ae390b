// The null device: a CUDA device that is none. Its memory is the host's, its streams are queues of closures, and each
// request is counted. Work is done when it is submitted, or with `late` only when somebody waits for it.
#pragma once
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace null {

using Run = std::function<void()>;

struct Node {
  std::string what;
  Run run;
};

struct Graph {
  std::vector<Node> nodes;  // in the order of submission
};

struct Stream;

struct Capture {
  Stream* origin;
  int mode;  // cudaStreamCaptureMode
  std::thread::id thread;
  bool broken;
  std::vector<Stream*> joined;  // with the origin
  Graph* graph;
};

struct Stream {
  bool blocking;  // waits for the legacy stream, and that waits for it
  std::deque<Run> pending;
  long submitted, done;
  Capture* capture;
  size_t last, covered;  // in a capture: nodes up to its last one, and up to the last that another stream waits for
  bool destroyed;        // it ends its work
};

struct Event {
  Stream* stream;  // null until it is recorded
  long mark;       // how much of the stream it waits for
  Capture* capture;
  size_t node;
  long long nanoseconds;
};

enum Error { Success = 0, InvalidValue = 1, OutOfMemory = 2, InvalidConfiguration = 9, NotReady = 600, LaunchFailure = 719, NotSupported = 801,
             CaptureUnsupported = 900, CaptureInvalidated = 901, CaptureUnjoined = 904, CaptureImplicit = 906 };

extern std::recursive_mutex guard;  // CuPy releases the interpreter's lock around its calls
extern bool idle;                   // nothing runs: launches are counted only
extern bool late;

Stream* stream_of(void* handle);    // 0 is the legacy stream
int failed(int error);              // remembers it as the last error
int last_error();                   // and forgets it
void note(const char* kind, const std::string& what = "");  // counts a request
bool journaling();

// Runs, keeps or captures work; an error if the stream cannot take it. `counted`: it is one of the program's requests.
int submit(void* stream, const char* kind, const std::string& what, Run run, bool counted = true);
void drain(Stream*, long upto);
void drain_all();
int refuse_unsafe(const char* what);             // what a capture in global mode does not allow
int refuse_waiting(Stream*, const char* what);   // null: for the whole device
bool is_pinned(const void*);
bool is_on_device(const void*, size_t bytes);  // in one block of its memory
const char* device_name();                      // 16 bytes that no other process's device has

}  // namespace null

#define LOCKED std::lock_guard<std::recursive_mutex> locked(null::guard)
