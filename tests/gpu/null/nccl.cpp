// NCCL between processes that have a null device each: messages and broadcasts, by sockets of this machine. As on GPUs a
// message waits for its peer, even for one that has died, until the communicator is aborted; unlike there, messages that
// do not fit, areas that overlap and host pointers are found.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <random>
#include <utility>

#include "device.h"

using namespace null;

namespace {
enum Result { SystemError = 2, InvalidArgument = 4, InvalidUsage = 5, RemoteError = 6 };
constexpr int VERSION = 22707, ID_BYTES = 128, SECONDS = 60;  // until a wait is given up
using Clock = std::chrono::steady_clock;

struct Id {
  char text[ID_BYTES];
};

struct Comm {
  int rank, size;
  std::vector<int> sockets;  // by rank
  std::atomic<int> error{0};
  std::atomic<bool> aborted{false};
};

struct Message {
  Comm* comm;
  bool sends;
  char* area;
  size_t bytes;
  int peer;
  void* stream;
};

thread_local int depth = 0;
thread_local std::vector<Message> group;

int complain(const char* what, int rank, int code) {
  fprintf(stderr, "null device: NCCL of rank %d: %s\n", rank, what);
  return code;
}

// One message of a connection, after its number of bytes.
struct Transfer {
  Message message;
  uint64_t announced = 0;
  size_t done = 0;  // bytes, of the number and of the message
  size_t left() const { return 8 + message.bytes - done; }
};

// Moves what can be moved now; returns whether anything was. `closed`: the peer is gone.
bool move(int socket, Transfer& transfer, bool& closed, int& error) {
  bool moved = false;
  transfer.announced = transfer.message.sends ? transfer.message.bytes : transfer.announced;
  while (transfer.left() && !closed && !error) {
    bool in_number = transfer.done < 8;
    char* area = in_number ? (char*)&transfer.announced + transfer.done : transfer.message.area + transfer.done - 8;
    size_t bytes = in_number ? 8 - transfer.done : transfer.left();
    ssize_t count = transfer.message.sends ? send(socket, area, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(socket, area, bytes, MSG_DONTWAIT);
    if (count <= 0) {
      closed = count == 0 || (errno != EAGAIN && errno != EINTR);
      return moved;
    }
    moved = true;
    transfer.done += count;
    if (!transfer.message.sends && transfer.done == 8 && transfer.announced != transfer.message.bytes) {
      char text[99];
      snprintf(text, sizeof text, "%zu bytes are awaited of rank %d, which sends %zu", transfer.message.bytes, transfer.message.peer, (size_t)transfer.announced);
      error = complain(text, transfer.message.comm->rank, InvalidUsage);
    }
  }
  return moved;
}

// Copies what a rank sends to itself; returns whether each message of a group has its peer there, in size and order.
bool to_itself(const std::vector<Message>& messages, bool copies) {
  std::vector<Message> ends[2];
  for (const Message& message : messages)
    if (message.peer == message.comm->rank) ends[message.sends].push_back(message);
  bool fits = ends[0].size() == ends[1].size();
  for (size_t i = 0; fits && i < ends[0].size(); i++) {
    fits = ends[0][i].bytes == ends[1][i].bytes;
    if (fits && copies) memcpy(ends[0][i].area, ends[1][i].area, ends[0][i].bytes);
  }
  return fits;
}

// The kernel of a group: all messages at once, those of a pair of ranks in their order.
void run(const std::vector<Message>& messages) {
  Comm* comm = messages[0].comm;
  std::vector<std::deque<Transfer>> queues(2 * comm->size);
  size_t left = 0;
  to_itself(messages, true);
  for (const Message& message : messages) {
    if (message.peer == comm->rank) continue;
    queues[2 * message.peer + message.sends].push_back({message});
    left++;
  }
  auto last = Clock::now();
  while (left && !comm->aborted && !comm->error) {
    bool moved = false;
    std::vector<pollfd> polled;
    for (int i = 0; i < (int)queues.size(); i++) {
      bool closed = false;
      int error = 0, socket = comm->sockets[i / 2];
      while (!queues[i].empty() && !closed) {
        moved |= move(socket, queues[i][0], closed, error);
        if (error) comm->error = error;
        if (queues[i][0].left()) break;
        queues[i].pop_front();
        left--;
      }
      if (!queues[i].empty() && !closed) polled.push_back({socket, short(i % 2 ? POLLOUT : POLLIN), 0});
    }
    if (moved) last = Clock::now();
    else if (Clock::now() - last > std::chrono::seconds(SECONDS)) comm->error = complain("nobody answers", comm->rank, SystemError);
    else if (left) poll(polled.data(), polled.size(), 20);
  }
  if (comm->error || comm->aborted) failed(LaunchFailure);
}

int launch(std::vector<Message> messages) {
  LOCKED;
  std::string what;
  for (const Message& message : messages) {
    Comm* comm = message.comm;
    if (!comm || message.peer < 0 || message.peer >= comm->size) return InvalidArgument;
    if (comm != messages[0].comm || message.stream != messages[0].stream) return complain("a group of several communicators or streams", comm->rank, InvalidUsage);
    if (message.bytes && !is_on_device(message.area, message.bytes)) return complain("an area is not on the device", comm->rank, InvalidArgument);
    for (const Message& other : messages)
      if (!(message.sends && other.sends) && &other != &message && message.area < other.area + other.bytes && other.area < message.area + message.bytes)
        return complain("an area is received into and used a second time", comm->rank, InvalidArgument);
    what += (message.sends ? " to " : " from ") + std::to_string(message.peer) + ": " + std::to_string(message.bytes);
  }
  if (messages.empty()) return 0;
  if (!to_itself(messages, false)) return complain("a message to itself has no peer of its size in the group", messages[0].comm->rank, InvalidUsage);
  return submit(messages[0].stream, "nccl", what.substr(1), [=] { if (!idle) run(messages); }) ? 1 : 0;
}

int add(std::vector<Message> messages) {
  group.insert(group.end(), messages.begin(), messages.end());
  if (depth) return 0;
  return launch(std::exchange(group, {}));
}

// ---- who the ranks are

sockaddr_un address(const Id& id, int rank, socklen_t& length) {
  sockaddr_un address = {AF_UNIX, {}};
  int count = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%.60s-%d", id.text, rank);  // of no file
  length = offsetof(sockaddr_un, sun_path) + 1 + count;
  return address;
}

bool whole(int socket, void* area, size_t bytes, bool sends) {
  while (bytes) {
    ssize_t count = sends ? send(socket, area, bytes, MSG_NOSIGNAL) : recv(socket, area, bytes, 0);
    if (count <= 0) return false;
    area = (char*)area + count, bytes -= count;
  }
  return true;
}

struct Card {  // what a rank tells of itself
  int rank;
  char device[16];
};

int connect_all(Comm* comm, const Id& id) {
  socklen_t length;
  sockaddr_un own = address(id, comm->rank, length);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval limit = {SECONDS, 0};
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);  // of accept
  if (bind(listener, (sockaddr*)&own, length) || listen(listener, comm->size)) return SystemError;
  Card mine = {comm->rank, {}};
  memcpy(mine.device, device_name(), 16);
  std::vector<Card> cards(comm->size);
  cards[comm->rank] = mine;
  auto start = Clock::now();
  for (int count = 1; count < comm->size; count++) {
    int peer = count - 1, connection;
    if (peer < comm->rank) {
      sockaddr_un other = address(id, peer, length);
      connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      while (connect(connection, (sockaddr*)&other, length)) {
        if (Clock::now() - start > std::chrono::seconds(SECONDS)) return SystemError;
        usleep(1000);
      }
    } else if ((connection = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)) < 0) {
      return SystemError;
    }
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    Card card;
    if (!whole(connection, &mine, sizeof mine, true) || !whole(connection, &card, sizeof card, false)) return RemoteError;
    if (card.rank < 0 || card.rank >= comm->size || comm->sockets[card.rank] >= 0) return InvalidUsage;
    comm->sockets[card.rank] = connection;
    cards[card.rank] = card;
  }
  close(listener);
  for (Card& card : cards)
    for (Card& other : cards)
      if (&card < &other && !memcmp(card.device, other.device, 16)) return complain("two ranks have the same GPU", comm->rank, InvalidUsage);
  return 0;
}
}  // namespace

extern "C" {
const char* ncclGetErrorString(int code) { return code == InvalidUsage ? "invalid usage" : code == InvalidArgument ? "invalid argument" : "an error of the null device"; }
int ncclGetVersion(int* version) { *version = VERSION; return 0; }
int ncclGetUniqueId(Id* id) {
  std::random_device bits;
  *id = {};
  snprintf(id->text, ID_BYTES, "null-nccl-%08x%08x%08x", bits(), bits(), bits());
  return 0;
}
int ncclCommInitRankConfig(Comm** made, int size, Id id, int rank, void*) {
  if (size < 1 || rank < 0 || rank >= size) return InvalidArgument;
  auto* comm = new Comm{rank, size, std::vector<int>(size, -1)};
  int code = connect_all(comm, id);
  if (!code) *made = comm;
  return code;
}
int ncclCommDestroy(Comm* comm) {
  LOCKED;
  drain_all();
  for (int socket : comm->sockets) close(socket);
  return 0;  // never freed: work of a graph may still name it
}
int ncclCommAbort(Comm* comm) { comm->aborted = true; return 0; }  // while a kernel of it runs
int ncclCommGetAsyncError(Comm* comm, int* error) { *error = comm->error; return 0; }
int ncclCommCount(Comm* comm, int* size) { *size = comm->size; return 0; }
int ncclCommUserRank(Comm* comm, int* rank) { *rank = comm->rank; return 0; }
int ncclGroupStart() { depth++; return 0; }
int ncclGroupEnd() { return --depth ? 0 : add({}); }
int ncclSend(const void* area, size_t count, int type, int peer, Comm* comm, void* stream) {
  return type > 1 ? InvalidArgument : add({{comm, true, (char*)area, count, peer, stream}});
}
int ncclRecv(void* area, size_t count, int type, int peer, Comm* comm, void* stream) {
  return type > 1 ? InvalidArgument : add({{comm, false, (char*)area, count, peer, stream}});
}
int ncclBcast(void* area, size_t count, int type, int root, Comm* comm, void* stream) {
  if (type > 1 || root < 0 || root >= comm->size) return InvalidArgument;
  std::vector<Message> messages;
  if (comm->rank != root) messages.push_back({comm, false, (char*)area, count, root, stream});
  else
    for (int peer = 0; peer < comm->size; peer++)
      if (peer != root) messages.push_back({comm, true, (char*)area, count, peer, stream});
  return add(messages);
}
}
