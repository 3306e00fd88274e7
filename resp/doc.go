// Package resp is the Redis face of a node: it speaks RESP2 and RESP3 on two
// doors and turns commands into calls on the coordinator.
//
// # A request's way through
//
// The server's accept loop (server.go) gives each connection one goroutine and
// one session (session.go). Bytes from the client pass the guard (guard.go),
// which checks framing and every limit as they arrive and has only whole,
// well-formed commands parsed; redcon's parser, which trusts its input, sees
// nothing else. The commands that arrived together form a batch. The executor
// (pipeline.go) gates each command (gate.go: arity, login, loading, key size,
// redirection), starts those that can run concurrently, and writes the replies
// in the order in which the commands came. Two commands that touch one key keep
// their order when one of them writes; a command that is not asynchronous waits
// for all before it and is waited for by all after it.
//
// # The table
//
// Every command is one row (table.go). Arity errors, COMMAND and its
// subcommands, the gate's decisions and the command list in the README are all
// read from the rows, so that they cannot disagree.
//
// # The doors
//
// The plain door is one big Redis: never a redirection, CLUSTER refused, SCAN
// and DBSIZE over the whole cluster. The cluster door publishes the ring as a
// slot map (cluster.go); any key is still served by any node, and the map's only
// teeth are one MOVED per connection after it changed, which is what makes
// clients notice.
//
// The Sentinel door has no keys and a small table of its own (sentinel.go): it
// tells clients of Redis Sentinel which plain door to use.
//
// # Who may call what
//
// cmd/redynamo/node builds a Server per door and implements Store (the
// coordinator) and Admin (what the node knows of itself and the ring). Nothing
// else imports this package, but a test that holds README against Rows.
package resp
