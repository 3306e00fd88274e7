package resp

import "strings"

// families are the commands of Redis that are not offered, by what they are about,
// and what to do instead. Their error begins as that of any unknown command does,
// so that clients that look for those words fall back as they would.
var families = [...]struct{ names, why string }{
	{"blmove blmpop blpop brpop brpoplpush lindex linsert llen lmove lmpop lpop lpos lpush lpushx lrange lrem lset ltrim rpop rpoplpush rpush rpushx",
		"lists are not offered: keep one in a value, and join siblings with VCTX.GET and VCTX.SET"},
	{"sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop srandmember srem sscan sunion sunionstore",
		"sets are not offered: keep one in a value, and join siblings with VCTX.GET and VCTX.SET"},
	{"hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals",
		"hashes are not offered: keep each field under a key of its own, with a {hashtag} to have them together"},
	{"bzmpop bzpopmax bzpopmin zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore zpopmax zpopmin " +
		"zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank zremrangebyscore zrevrange " +
		"zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore geoadd geodist geohash geopos georadius georadiusbymember " +
		"georadius_ro georadiusbymember_ro geosearch geosearchstore",
		"sorted sets are not offered"},
	{"xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim",
		"streams are not offered: their order needs one owner"},
	{"eval evalsha eval_ro evalsha_ro fcall fcall_ro", "scripts are not offered: nothing here is one step over several keys"},
	{"pfadd pfcount pfdebug pfmerge pfselftest", "HyperLogLog is not offered"},
}

// whyUnknown is a few words about a command that Redis has and this server has
// not, or "".
func whyUnknown(name []byte) string {
	var room [nameBytes]byte
	word := string(fold(room[:0], name))
	if word == "" {
		return ""
	}
	for _, f := range families {
		for rest := f.names; rest != ""; {
			var one string
			if one, rest, _ = strings.Cut(rest, " "); one == word {
				return f.why
			}
		}
	}
	return ""
}
