package resp

import (
	"context"
	"errors"
	"strconv"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp/rdb"
)

// Error texts of Redis that more than one command uses.
const (
	errSyntax       = "ERR syntax error"
	errNotInteger   = "ERR value is not an integer or out of range"
	errNotFloat     = "ERR value is not a valid float"
	errDatabase     = "ERR DB index is out of range"
	errOffset       = "ERR offset is out of range"
	errTooLong      = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errNoKey        = "ERR no such key"
	errWrongType    = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errLoading      = "LOADING Redis is loading the dataset in memory"
	errNoAuth       = "NOAUTH Authentication required."
	errWrongPass    = "WRONGPASS invalid username-password pair or user is disabled."
	errCrossSlot    = "CROSSSLOT Keys in request don't hash to the same slot"
	errNoCluster    = "ERR This instance has cluster support disabled"
	errKeyTooLong   = "ERR key is longer than the limit of this server"
	errBadContext   = "BADCTX the context token is damaged, was made for another key, or is from another cluster"
	errReplyTooLong = "ERR the reply would be longer than the limit of this server"
	errInternal     = "ERR internal error"
	errShutdown     = "ERR the server is shutting down"
	errDumpSum      = "ERR DUMP payload version or checksum are wrong"
)

// wording is the one table from sentinel to Redis error. The first row that
// matches wins.
//
// Duty: an error after which something may have been written must not start
// with a word that clients retry by themselves (NOREPLICAS, LOADING, CLUSTERDOWN,
// TRYAGAIN, MASTERDOWN, READONLY), or an APPEND is applied twice.
var wording = [...]struct {
	is   error
	text string
}{
	{coordinator.ErrDiskFull, "NOREPLICAS Not enough good replicas to write: disk almost full."},
	{coordinator.ErrNoReplicas, "NOREPLICAS Not enough good replicas to write."},
	{coordinator.ErrNoOwner, "NOREPLICAS Not enough good replicas to read: no owner of the key could be asked."},
	{coordinator.ErrNoReadQuorum, "NOREPLICAS Not enough good replicas to read."},
	{coordinator.ErrStale, "STALE no reachable replica has what the token has seen"},
	{coordinator.ErrOverloaded, "OVERLOADED too many requests in progress, try again later"},
	{coordinator.ErrTimeout, "TIMEOUT not enough replicas answered in time"},
	{version.ErrTooManySiblings, "TOOMANYSIBLINGS the key has too many concurrent versions: read it and write with the context returned"},
	{version.ErrTooLarge, errTooLong},
	{version.ErrNotInteger, errNotInteger},
	{version.ErrNotFloat, errNotFloat},
	{version.ErrOverflow, "ERR increment or decrement would overflow"},
	{version.ErrNotFinite, "ERR increment would produce NaN or Infinity"},
	{version.ErrBadToken, errBadContext},
	{version.ErrCorrupt, "ERR stored data is damaged on too many replicas"},
	{rdb.ErrSum, errDumpSum},
	{rdb.ErrData, "ERR Bad data format"},
	{rdb.ErrType, "ERR Bad data format: only strings can be restored here"},
	{rdb.ErrTooLong, errTooLong},
	{context.DeadlineExceeded, "TIMEOUT the request took too long"},
	{context.Canceled, errShutdown},
}

// errorText is the reply for err. Errors without a row are not shown to
// clients: they may carry addresses or paths.
func errorText(err error) string {
	var uncertain *coordinator.UncertainError
	if errors.As(err, &uncertain) {
		return "UNCERTAIN acked " + strconv.Itoa(uncertain.Acked) + "/" + strconv.Itoa(uncertain.Want) +
			": the write may or may not have been made, and may still appear"
	}
	for i := range wording {
		if errors.Is(err, wording[i].is) {
			return wording[i].text
		}
	}
	return errInternal
}
