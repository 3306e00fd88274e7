package rdb

import "fmt"

// The types of values in a file, by the byte before them. There is no 8, and values of
// type 6 do not say how long they are.
const (
	typeString     = 0
	typeList       = 1
	typeSet        = 2
	typeZSet       = 3
	typeHash       = 4
	typeZSet2      = 5
	typeModule     = 6
	typeModule2    = 7
	typeQuicklist  = 14
	typeStream     = 15
	typeQuicklist2 = 18
	typeStream2    = 19
	typeStream3    = 21
	lastType       = 21 // of Redis 7.2
)

// typeNames is what TYPE says of each.
var typeNames = [lastType + 1]string{
	"string", "list", "set", "zset", "hash", "zset", "module", "module", "", "hash", "list",
	"set", "zset", "hash", "list", "stream", "hash", "zset", "list", "stream", "set", "stream",
}

// TypeName is what TYPE says of values of the type that a byte stands for in a file, or
// "unknown".
func TypeName(kind byte) string {
	if int(kind) < len(typeNames) && typeNames[kind] != "" {
		return typeNames[kind]
	}
	return fmt.Sprintf("unknown (%d)", kind)
}
