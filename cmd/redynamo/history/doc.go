// Package history judges what clients did to a cluster and saw of it: whether
// acknowledged writes are lost or back from the dead, and what else a store that
// keeps concurrent versions must never show. It knows nothing of networks, files
// and clocks, and is used by the program's `check`, by the cluster in virtual time
// and by the scorecard.
//
// # The format
//
// A history is JSON lines. The first one names the format; each other one is one
// operation, in the order in which the operations ended, or a note.
//
//	{"op":"history","version":1}
//	{"op":"vctx.set","session":"a","key":"k","value":"a-1","token":"","next":"t1","result":"ok","begin_us":10,"end_us":25,"node":"n1:6379"}
//	{"op":"vctx.get","session":"b","key":"k","next":"t2","values":[{"value":"a-1","dot":"7f…:1"}],"result":"ok","begin_us":30,"end_us":41,"node":"n2:6379"}
//	{"op":"vctx.del","session":"b","key":"k","token":"t2","next":"t3","result":"unknown","error":"UNCERTAIN acked 1/2","begin_us":50,"end_us":90,"node":"n2:6379"}
//	{"op":"final","key":"k","values":[],"result":"ok","begin_us":900,"end_us":910,"node":"n1:6379"}
//	{"op":"inspect","key":"k","copies":[{"node":"7f…","role":"owner","state":"90…","dots":[]}],"owners":3,"result":"ok","begin_us":920,"end_us":930,"node":"n1:6379"}
//
//	op        what
//	history   the first line: version is 1; calm: true says that no fault happened and that
//	          each write and read used the default R and W with R+W>N
//	vctx.set  wrote value with token, and was given the token next
//	vctx.del  deleted with token
//	vctx.get  was shown values, with their dots if these are known, and given next; min is the
//	          token that the read had to cover
//	set del   the plain commands: they bring no token of their own
//	get       a plain read: at most one value, and no token
//	fault     a note: what was done to the cluster, in what
//	final     a read of all owners, after all faults and all operations on the key
//	inspect   the copies of a key: state is a hash of what the copy holds, empty for a copy
//	          that could not be asked; owners is how many owners there must be
//
//	field     of
//	session   every operation of a client: who did it. A session does one thing at a time
//	key       everything but fault and history
//	value     writes: unique among all writes of the key, so that it names the write
//	token     vctx.set, vctx.del: a name of the token sent. "" is the empty token, "*" the token
//	          that makes the write a plain one; every other was given out by an earlier line
//	next      the token given out. Any name will do, such as the token itself in base64; a name
//	          that is given out twice has seen what both lines say
//	result    ok; fail: certainly not made; unknown: it may have been made, or may yet be, at
//	          any time after its begin
//	begin_us  microseconds since some instant, the same one for the whole file
//	end_us    the same; of an unknown operation, when the client gave up
//	node      where the operation was sent. A session that changes its node, or is not told ok,
//	          goes on with a new connection
//	w r       how many nodes were asked for, 0 or absent is the default of the cluster
//	ttl_ms    writes: the value expires so long after it was made
//	error     text for people
//
// Two writes with one token are concurrent. A repeated write is a new operation
// with a value of its own. A field that is not in this list is an error, so that a
// misspelt one does not go by unnoticed; a later version of the format has another
// number in its first line.
//
// # What is judged
//
// Values name writes and tokens carry causality, so no clock is needed: the past of
// a token that a read gave out is what was shown and the past of that; the past of
// a token that a write gave out is that write and the past of its own token
// (the causality notes of the design, §6). The real past may be larger, never
// smaller.
//
//	lost          an acknowledged write is not among the final values of its key, and
//	              neither these nor a delete had seen it
//	resurrected   a final value had been seen by an acknowledged write or delete
//	phantom       a value is shown that nobody wrote, or whose write failed
//	sibling       one read shows a value beside another that had seen it
//	session       a read with min shows less than the token had seen
//	dot           one dot stands for two values, or one value has two
//	diverged      the owners of a key hold different states at the end
//	unreadable    a final read failed
//	expired       a value is shown long after its time to live
//	bound         a calm history shows siblings that were not concurrent
//
// What is not refused, acknowledged or unknown, may cover what its token has seen;
// only what is acknowledged must. A write of unknown outcome may be there or not.
//
// # Plain writes
//
// A plain SET covers what its coordinator holds, and its connection remembers what
// it read. Of two plain SETs at the same time one wins; the other may be replaced
// by the next SET without anybody having seen it. That is promised, so it is counted
// in [Figures] and no violation. What is promised is the order of one connection:
// its later write wins over its earlier one, and replaces it if the connection still
// remembers the key. On a key with plain writes, those are judged by that, and
// whether all is gone although nobody deleted.
//
// # Memory
//
// Keys are judged apart from each other, and a key is forgotten at its final line.
// [Options.Shards] lets one pass over a file keep to a share of its keys.
package history
