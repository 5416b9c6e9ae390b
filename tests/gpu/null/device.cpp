// The state of the null device: counters, streams, captures.
#include "device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>

namespace null {

std::recursive_mutex guard;
bool idle = false, late = false;

namespace {
std::map<std::string, long> counters;
std::string journal;
bool keeping = false;
int error = 0;
Stream legacy{true, {}, 0, 0, nullptr, 0, 0};
std::set<Stream*> streams{&legacy};
std::vector<Capture*> captures;

void enqueue(Stream* stream, Run run) {
  stream->submitted++;
  stream->pending.push_back(std::move(run));
}

// The legacy stream and blocking streams wait for each other.
void order(Stream* stream) {
  for (Stream* other : streams) {
    bool ordered = stream == &legacy ? other->blocking : stream->blocking && other == &legacy;
    long mark = other->submitted;
    if (ordered && other != stream && other->done < mark) enqueue(stream, [=] { drain(other, mark); });
  }
}

int broken(Capture* capture, int code, const char* what) {
  capture->broken = true;
  note("refused", what);
  return failed(code);
}
}  // namespace

Stream* stream_of(void* handle) { return (size_t)handle <= 2 ? &legacy : (Stream*)handle; }

int failed(int code) { return code ? error = code : 0; }

int last_error() {
  int code = error;
  error = 0;
  return code;
}

bool journaling() { return keeping; }

void note(const char* kind, const std::string& what) {
  counters[kind]++;
  if (keeping) journal += std::string(kind) + " " + what + "\n";
}

int submit(void* handle, const char* kind, const std::string& what, Run run, bool counted) {
  Stream* stream = stream_of(handle);
  if (stream == &legacy)
    for (Capture* capture : captures)
      if (capture->origin->blocking) return broken(capture, CaptureImplicit, "the legacy stream");
  if (counted) note(kind, what);
  if (stream->capture) {
    stream->capture->graph->nodes.push_back({std::string(kind) + " " + what, std::move(run)});
    stream->last = stream->capture->graph->nodes.size();
    return 0;
  }
  if (!captures.empty() && counted) note("escaped", what);  // from a capture, unless that is what the program wants
  if (!late) {
    error = 0;
    run();
    return error;  // of a kernel
  } else {
    order(stream);
    enqueue(stream, std::move(run));
  }
  return 0;
}

void drain(Stream* stream, long upto) {
  while (stream->done < upto && !stream->pending.empty()) {
    Run run = std::move(stream->pending.front());
    stream->pending.pop_front();
    stream->done++;
    run();
  }
  if (stream->destroyed && stream->pending.empty()) streams.erase(stream);
}

void drain_all() {
  for (Stream* stream : std::set<Stream*>(streams)) drain(stream, stream->submitted);
}

int refuse_unsafe(const char* what) {
  for (Capture* capture : captures)
    if (capture->mode == 0 || (capture->mode == 1 && capture->thread == std::this_thread::get_id()))
      return broken(capture, CaptureUnsupported, what);
  return 0;
}

int refuse_waiting(Stream* stream, const char* what) {
  if (stream && stream->capture) return broken(stream->capture, CaptureUnsupported, what);
  for (Capture* capture : captures)
    if (!stream || (stream == &legacy && capture->origin->blocking)) return broken(capture, CaptureUnsupported, what);
  return refuse_unsafe(what);
}

}  // namespace null

using namespace null;

extern "C" {
// ---- for the tests
void null_reset() { LOCKED; counters.clear(); journal.clear(); }
void null_journal(int on) { LOCKED; keeping = on; }
const char* null_entries() { LOCKED; return journal.c_str(); }
// Does all that was submitted; the caller then works on the memory itself, which counts as a kernel.
void null_run_now(const char* what) { LOCKED; drain_all(); note("kernel", what); }
void null_idle(int on) { LOCKED; idle = on; }
void null_late(int on) { LOCKED; drain_all(); late = on; }
long null_count(const char* kind) { LOCKED; auto found = counters.find(kind); return found == counters.end() ? 0 : found->second; }

// ---- streams
int cudaStreamCreateWithPriority(void** stream, unsigned flags, int) {
  LOCKED;
  auto* made = new Stream{!(flags & 1), {}, 0, 0, nullptr, 0, 0};
  streams.insert(made);
  *stream = made;
  return 0;
}
int cudaStreamCreateWithFlags(void** stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
int cudaStreamCreate(void** stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
int cudaStreamGetFlags(void* stream, unsigned* flags) { *flags = !stream_of(stream)->blocking; return 0; }
int cudaStreamGetPriority(void*, int* priority) { *priority = 0; return 0; }
int cudaStreamDestroy(void* handle) {  // waits for nothing; never freed: events may still name it
  LOCKED;
  Stream* stream = stream_of(handle);
  stream->destroyed = true;
  if (stream->pending.empty()) streams.erase(stream);
  return 0;
}
int cudaStreamSynchronize(void* handle) {
  LOCKED;
  Stream* stream = stream_of(handle);
  if (int code = refuse_waiting(stream, "cudaStreamSynchronize")) return code;
  note("wait", "stream");
  if (stream == &legacy) order(stream);
  error = 0;
  drain(stream, stream->submitted);
  return error;
}
int cudaStreamQuery(void* handle) {
  LOCKED;
  Stream* stream = stream_of(handle);
  if (int code = refuse_waiting(stream, "cudaStreamQuery")) return code;
  drain(stream, stream->done + 1);  // each question gives it time for one more
  return stream->pending.empty() ? 0 : NotReady;
}
int cudaDeviceSynchronize() {
  LOCKED;
  if (int code = refuse_waiting(nullptr, "cudaDeviceSynchronize")) return code;
  note("wait", "device");
  drain_all();
  return 0;
}

// ---- captures
int cudaStreamBeginCapture(void* handle, int mode) {
  LOCKED;
  Stream* stream = stream_of(handle);
  if (stream == &legacy || stream->capture) return failed(CaptureUnsupported);
  stream->capture = new Capture{stream, mode, std::this_thread::get_id(), false, {}, new Graph};
  stream->last = stream->covered = 0;
  captures.push_back(stream->capture);
  return 0;
}
int cudaStreamEndCapture(void* handle, void** graph) {
  LOCKED;
  *graph = nullptr;
  Capture* capture = stream_of(handle)->capture;
  if (!capture || capture->origin != stream_of(handle)) return failed(InvalidValue);
  captures.erase(std::find(captures.begin(), captures.end(), capture));
  int code = capture->broken ? CaptureInvalidated : 0;
  for (Stream* stream : capture->joined) {
    if (!code && stream->last > stream->covered) code = CaptureUnjoined;
    stream->capture = nullptr;
  }
  capture->origin->capture = nullptr;
  if (!code) *graph = capture->graph;
  return failed(code);
}
int cudaStreamIsCapturing(void* handle, int* status) {
  LOCKED;
  Capture* capture = stream_of(handle)->capture;
  *status = !capture ? 0 : capture->broken ? 2 : 1;
  return 0;
}
int cudaGraphInstantiate(void** executable, void* graph, unsigned long long) { LOCKED; *executable = new Graph(*(Graph*)graph); return 0; }
int cudaGraphLaunch(void* executable, void* stream) {
  LOCKED;
  Graph copy = *(Graph*)executable;  // it may be destroyed before it has run
  return submit(stream, "graph", std::to_string(copy.nodes.size()), [copy] { for (auto& node : copy.nodes) node.run(); });
}
int cudaGraphUpload(void*, void*) { return 0; }
int cudaGraphDestroy(void* graph) { LOCKED; delete (Graph*)graph; return 0; }
int cudaGraphExecDestroy(void* executable) { LOCKED; delete (Graph*)executable; return 0; }
int cudaGraphDebugDotPrint(void* graph, const char* path, unsigned) {
  LOCKED;
  FILE* file = fopen(path, "w");
  if (!file) return failed(InvalidValue);
  fputs("digraph {\n", file);
  int number = 0;
  for (auto& node : ((Graph*)graph)->nodes) fprintf(file, "  n%d [label=\"%s\"];\n", number++, node.what.c_str());
  fputs("}\n", file);
  fclose(file);
  return 0;
}

// ---- events
int cudaEventCreateWithFlags(void** event, unsigned) { *event = new Event{nullptr, 0, nullptr, 0, 0}; return 0; }
int cudaEventCreate(void** event) { return cudaEventCreateWithFlags(event, 0); }
int cudaEventDestroy(void* event) { LOCKED; delete (Event*)event; return 0; }
int cudaEventRecord(void* handle, void* on) {
  LOCKED;
  auto* event = (Event*)handle;
  Stream* stream = stream_of(on);
  note("event");
  *event = {stream, stream->submitted, stream->capture, stream->last,
            std::chrono::steady_clock::now().time_since_epoch().count()};
  return 0;
}
int cudaStreamWaitEvent(void* on, void* handle, unsigned) {
  LOCKED;
  auto* event = (Event*)handle;
  Stream *stream = stream_of(on), *before = event->stream;
  if (!before || before == stream) return 0;
  if (event->capture) {
    if (!stream->capture) {
      stream->capture = event->capture;
      stream->last = stream->covered = 0;
      event->capture->joined.push_back(stream);
    } else if (stream->capture != event->capture) {
      return broken(stream->capture, CaptureUnsupported, "cudaStreamWaitEvent");
    }
    before->covered = std::max(before->covered, event->node);
  } else if (stream->capture) {  // on work from outside of the capture
    return broken(stream->capture, CaptureUnsupported, "cudaStreamWaitEvent");
  } else if (late) {
    long mark = event->mark;
    enqueue(stream, [=] { drain(before, mark); });
  }
  return 0;
}
int cudaEventQuery(void* handle) {
  LOCKED;
  auto* event = (Event*)handle;
  if (!event->stream) return 0;
  if (event->capture) return broken(event->capture, CaptureUnsupported, "cudaEventQuery");
  if (event->stream->done < event->mark) drain(event->stream, event->stream->done + 1);
  return event->stream->done < event->mark ? NotReady : 0;
}
int cudaEventSynchronize(void* handle) {
  LOCKED;
  auto* event = (Event*)handle;
  if (!event->stream) return 0;
  if (event->capture) return broken(event->capture, CaptureUnsupported, "cudaEventSynchronize");
  note("wait", "event");
  error = 0;
  drain(event->stream, event->mark);
  return error;
}
int cudaEventElapsedTime(float* milliseconds, void* from, void* to) {
  LOCKED;
  *milliseconds = (((Event*)to)->nanoseconds - ((Event*)from)->nanoseconds) / 1e6f;
  return 0;
}
}
