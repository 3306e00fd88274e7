package migrate

import (
	"errors"
	"strings"
	"testing"
)

// said is an error that a server answers.
type said string

func (s said) Error() string { return string(s) }

// RedisError tells the client's package that this is a reply.
func (said) RedisError() {}

func TestErrorsAreJudgedByTheirWords(t *testing.T) {
	for text, want := range map[string]fault{
		"NOREPLICAS Not enough good replicas to write.":                     faultAgain,
		"UNCERTAIN acked 1/2":                                               faultAgain,
		"ERR max number of clients reached":                                 faultAgain,
		"DENIED Redis is running in protected mode":                         faultStop,
		"NOAUTH Authentication required.":                                   faultStop,
		"NOPERM User x has no permissions to run the 'set' command":         faultStop,
		"ERR unknown command 'SET', with args beginning with: 'k' 'v' 'NX'": faultStop,
		"TOOMANYSIBLINGS":                                                   faultKey,
		"ERR string exceeds maximum allowed size (proto-max-bulk-len)":      faultKey,
	} {
		if got := judge(said(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if judge(errors.New("connection reset")) != faultAgain || judge(nil) != faultNone {
		t.Error("what no server says")
	}
}

// TestABadAddressRefusesNoKeys has one beside a good one.
func TestABadAddressRefusesNoKeys(t *testing.T) {
	from, to := bench(t)
	for word, bad := range map[string]server{"unknown command": startServer(t, "--rename-command", "SET", ""), "NOAUTH": startServer(t, "--requirepass", "p")} {
		for way, cfg := range ways(t, from, to) {
			cfg.To.Addrs = []string{to.addr, bad.addr}
			counts, err := Run(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), bad.addr) || counts.Refused != 0 {
				t.Errorf("%s: %+v, %v", way, counts, err)
			}
		}
	}
}
