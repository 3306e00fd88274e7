package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Version is the version of the format, in its first line.
const Version = 1

// The words of op.
const (
	Header  = "history"
	VSet    = "vctx.set"
	VDel    = "vctx.del"
	VGet    = "vctx.get"
	Set     = "set"
	Del     = "del"
	Get     = "get"
	Fault   = "fault"
	Final   = "final"
	Inspect = "inspect"
)

// Result is what became of an operation, as far as its client knows.
type Result string

// The words of result.
const (
	OK      Result = "ok"
	Fail    Result = "fail"    // certainly not made
	Unknown Result = "unknown" // no answer, or one that says so: it may yet be made
)

// refusals are the first words of errors after which nothing was written.
var refusals = []string{"NOREPLICAS", "LOADING", "OVERLOADED", "TOOMANYSIBLINGS", "STALE", "BADCTX"}

// Refused reports whether a node that answers a write with this error has
// certainly not made it, nor will.
func Refused(reply string) bool {
	word, _, _ := strings.Cut(reply, " ")
	return slices.Contains(refusals, word)
}

// Plain is the token that makes a VCTX write a plain one.
const Plain = "*"

// Op is one line of a history.
type Op struct {
	Kind    string  `json:"op"`
	Version int     `json:"version,omitempty"`
	Calm    bool    `json:"calm,omitempty"`
	What    string  `json:"what,omitempty"`
	Session string  `json:"session,omitempty"`
	Key     string  `json:"key,omitempty"`
	Value   string  `json:"value,omitempty"`
	Token   *string `json:"token,omitempty"`
	Min     string  `json:"min,omitempty"`
	Next    string  `json:"next,omitempty"`
	Values  []Shown `json:"values,omitempty"`
	Copies  []Copy  `json:"copies,omitempty"`
	Owners  int     `json:"owners,omitempty"`
	TTLMS   int64   `json:"ttl_ms,omitempty"`
	W       int     `json:"w,omitempty"`
	R       int     `json:"r,omitempty"`
	Result  Result  `json:"result,omitempty"`
	Error   string  `json:"error,omitempty"`
	BeginUS int64   `json:"begin_us"`
	EndUS   int64   `json:"end_us"`
	Node    string  `json:"node,omitempty"`
}

// Shown is one value that a read showed. Of several the newest is first.
type Shown struct {
	Value string `json:"value"`
	Dot   string `json:"dot,omitempty"`
}

// String is the value with its dot, for people.
func (s Shown) String() string {
	if s.Dot == "" {
		return s.Value
	}
	return s.Value + "@" + s.Dot
}

// Copy is one copy of a key.
type Copy struct {
	Node  string   `json:"node"`
	Role  string   `json:"role"`  // owner, or anything else
	State string   `json:"state"` // a hash of what it holds; "" if the node could not be asked
	Dots  []string `json:"dots,omitempty"`
}

// Owner is the role of a copy that counts.
const Owner = "owner"

// With is the token field of a write.
func With(token string) *string { return &token }

// AppendLine appends the line of o.
func AppendLine(dst []byte, o *Op) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(fmt.Sprintf("history: %v", err)) // strings and numbers alone
	}
	return append(append(dst, b...), '\n')
}

// plain reports whether o is a write without a context of its own.
func (o *Op) plain() bool {
	return o.Kind == Set || o.Kind == Del || (o.Kind == VSet || o.Kind == VDel) && *o.Token == Plain
}

// validate reports all that o lacks, apart from what other lines say.
func (o *Op) validate() error {
	var errs []error
	lacks := func(bad bool, what string) {
		if bad {
			errs = append(errs, errors.New(o.Kind+" "+what))
		}
	}
	write, versioned := false, o.Kind == VSet || o.Kind == VDel
	switch o.Kind {
	case Fault:
		return nil
	case Header:
		return errors.New("a second first line")
	case VSet, Set:
		lacks(o.Value == "", "without a value")
		write = true
	case VDel, Del, VGet, Get, Final, Inspect:
		lacks(o.Value != "", "with a value: those of reads are in values")
		write = o.Kind == VDel || o.Kind == Del
	case "":
		return errors.New("a line without op")
	default:
		return fmt.Errorf("op %q is unknown", o.Kind)
	}
	lacks(o.Key == "", "without a key")
	lacks(o.Session == "" && o.Kind != Final && o.Kind != Inspect, "without a session")
	lacks(o.Result != OK && o.Result != Fail && o.Result != Unknown, fmt.Sprintf("with result %q: ok, fail or unknown", string(o.Result)))
	lacks(versioned && o.Token == nil, "without a token")
	lacks(!versioned && o.Token != nil, "with a token")
	lacks(write && len(o.Values) > 0 || o.Kind == Inspect && len(o.Values) > 0, "with values")
	lacks(o.Kind == Get && len(o.Values) > 1, "with several values")
	lacks(o.Min != "" && o.Kind != VGet, "with min")
	lacks(o.Next != "" && !versioned && o.Kind != VGet && o.Kind != Final, "with next")
	lacks(o.Next == Plain, "with next \"*\"")
	lacks(o.Kind != Inspect && (len(o.Copies) > 0 || o.Owners != 0), "with copies")
	lacks(o.EndUS < o.BeginUS, "that ends before it begins")
	lacks(o.TTLMS < 0 || o.TTLMS > 0 && o.Kind != VSet && o.Kind != Set, "with that ttl_ms")
	return errors.Join(errs...)
}
