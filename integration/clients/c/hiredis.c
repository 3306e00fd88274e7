/* hiredis, one connection in RESP2. The arguments and what is printed are those of ../main.go.
 *
 *   hiredis hiredis plain 2 HOST:PORT,HOST:PORT,... [write]
 */
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { MANY = 300, NODES = 16 };
static char *addrs[NODES];
static int nodes;
static redisContext *writer, *reader;
#define PREFIX "hiredis:plain:"

static long long now_ms(void) {
  struct timeval t;
  gettimeofday(&t, NULL);
  return t.tv_sec * 1000LL + t.tv_usec / 1000;
}

/* A connection to one node, or NULL. */
static redisContext *dial(int at) {
  char host[256];
  struct timeval patience = {5, 0};
  snprintf(host, sizeof host, "%s", addrs[at % nodes]);
  char *colon = strrchr(host, ':');
  *colon = 0;
  redisContext *c = redisConnectWithTimeout(host, atoi(colon + 1), patience);
  if (c && !c->err && redisSetTimeout(c, patience) == REDIS_OK) return c;
  if (c) redisFree(c);
  return NULL;
}

static int is_text(redisReply *r, const char *want) {
  return r && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS) && strcmp(r->str, want) == 0;
}

/* Whether a reply is an array of n. */
static int is_list(redisReply *r, size_t n) { return r && r->type == REDIS_REPLY_ARRAY && r->elements == n; }

static const char *strings(void) {
  char blob[20000];
  for (size_t i = 0; i < sizeof blob; i++) blob[i] = (char)i;
  if (!is_text(redisCommand(writer, "SET " PREFIX "blob %b", blob, sizeof blob), "OK")) return "SET";
  redisReply *r = redisCommand(reader, "GET " PREFIX "blob");
  if (!r || r->type != REDIS_REPLY_STRING || r->len != sizeof blob || memcmp(r->str, blob, sizeof blob)) return "GET";
  r = redisCommand(reader, "GET " PREFIX "absent");
  return r && r->type == REDIS_REPLY_NIL ? NULL : "GET of an absent key";
}

static const char *pipeline(void) {
  char want[32];
  redisReply *r;
  for (int i = 0; i < MANY; i++) redisAppendCommand(writer, "SET " PREFIX "many:%d value:%d", i, i);
  for (int i = 0; i < MANY; i++)
    if (redisGetReply(writer, (void **)&r) != REDIS_OK || !is_text(r, "OK")) return "SET in a pipeline";
  for (int i = 0; i < MANY; i++) {
    snprintf(want, sizeof want, "value:%d", i);
    if (!is_text(redisCommand(reader, "GET " PREFIX "many:%d", i), want)) return "GET after a pipeline";
  }
  return NULL;
}

static const char *expiry(void) {
  if (!is_text(redisCommand(writer, "SET " PREFIX "soon over EX 100"), "OK")) return "SET EX";
  redisReply *r = redisCommand(reader, "TTL " PREFIX "soon");
  return r && r->type == REDIS_REPLY_INTEGER && r->integer > 90 && r->integer <= 100 ? NULL : "TTL";
}

static const char *scan(void) {
  static char met[MANY];
  int found = 0, n;
  char cursor[32] = "0";
  do {
    redisReply *r = redisCommand(reader, "SCAN %s MATCH " PREFIX "many:* COUNT 50", cursor);
    if (!is_list(r, 2)) return "SCAN";
    snprintf(cursor, sizeof cursor, "%s", r->element[0]->str);
    for (size_t i = 0; i < r->element[1]->elements; i++)
      if (sscanf(r->element[1]->element[i]->str, PREFIX "many:%d", &n) == 1 && n < MANY && !met[n]) met[n] = 1, found++;
  } while (strcmp(cursor, "0"));
  return found == MANY ? NULL : "SCAN did not meet all keys";
}

static const char *multi(void) {
  const char *words[] = {"MULTI", "SET " PREFIX "multi all", "GET " PREFIX "multi", "EXEC"};
  redisReply *r = NULL;
  for (int i = 0; i < 4; i++) redisAppendCommand(writer, words[i]);
  for (int i = 0; i < 4; i++)
    if (redisGetReply(writer, (void **)&r) != REDIS_OK) return "MULTI";
  return is_list(r, 2) && is_text(r->element[1], "all") ? NULL : "EXEC";
}

/* A message may be lost where nodes take each other for dead, so many are sent. */
static const char *pubsub(void) {
  redisContext *listener = dial(nodes - 1);
  redisReply *r;
  if (!listener || !is_list(redisCommand(listener, "SUBSCRIBE " PREFIX "news"), 3)) return "SUBSCRIBE";
  for (int i = 0; i < 2000; i++) {
    redisCommand(writer, "PUBLISH " PREFIX "news hello");
    struct pollfd heard = {listener->fd, POLLIN, 0};
    if (poll(&heard, 1, 10) == 1)
      return redisGetReply(listener, (void **)&r) == REDIS_OK && is_list(r, 3) && is_text(r->element[2], "hello") ? NULL : "message";
  }
  return "nothing heard";
}

/* The versions left by a write of value with the token of seen. */
static long long put(redisContext *c, const char *key, const char *value, redisReply *seen) {
  redisReply *r = redisCommand(c, "VCTX.SET %s %s %b", key, value, seen->element[0]->str, (size_t)seen->element[0]->len);
  return is_list(r, 2) ? r->element[1]->integer : -1;
}

static const char *vctx(void) {
  char key[64];
  snprintf(key, sizeof key, PREFIX "cart:%lld", now_ms());
  redisReply *seen = redisCommand(writer, "VCTX.GET %s", key);
  if (!is_list(seen, 2) || !is_list(seen->element[1], 0)) return "VCTX.GET of a new key";
  if (put(writer, key, "one", seen) != 1 || put(reader, key, "two", seen) != 2) return "two writes from one context";
  seen = redisCommand(reader, "VCTX.GET %s", key);
  if (!is_list(seen, 2) || !is_list(seen->element[1], 2)) return "VCTX.GET of siblings";
  if (put(writer, key, "both", seen) != 1) return "a write that saw both";
  seen = redisCommand(reader, "VCTX.GET %s", key);
  return is_list(seen, 2) && is_list(seen->element[1], 1) && is_text(seen->element[1]->element[0], "both") ? NULL : "VCTX.GET";
}

/* Writes until it is killed, at the next node after an error. */
static void write_on(void) {
  redisContext *c = NULL;
  int at = 0;
  for (int i = 0;; i++) {
    poll(NULL, 0, 10);
    long long begin = now_ms();
    char what[160] = "ok";
    if (!c) c = dial(at);
    redisReply *r = c ? redisCommand(c, "SET kill:hiredis:plain:%d %d", i % 1000, i) : NULL;
    if (!is_text(r, "OK")) {
      snprintf(what, sizeof what, "%s", r ? r->str : c ? c->errstr : "no connection");
      if (c) redisFree(c);
      c = NULL;
      at++;
    }
    if (r) freeReplyObject(r);
    printf("%lld %lld %s\n", begin, now_ms(), what);
    if (fflush(stdout)) exit(0);
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  for (char *a = strtok(argv[4], ","); a && nodes < NODES; a = strtok(NULL, ",")) addrs[nodes++] = a;
  if (argc > 5) write_on();
  writer = dial(0);
  reader = dial(nodes - 1);
  if (!writer || !reader) return 1;
  printf("version %d.%d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
  struct {
    const char *name, *(*check)(void);
  } all[] = {{"strings", strings}, {"pipeline", pipeline}, {"expiry", expiry}, {"scan", scan}, {"multi", multi}, {"pubsub", pubsub}, {"vctx", vctx}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const char *wrong = all[i].check();
    printf("%s %s%s\n", all[i].name, wrong ? "wrong " : "ok", wrong ? wrong : "");
  }
  return 0;
}
