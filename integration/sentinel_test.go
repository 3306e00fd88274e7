package integration

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// sentinelGap is how long clients of sentinels may get nothing done when the node
// that they write to is killed.
const sentinelGap = 6 * time.Second

// TestClientsOfSentinelsGoOnWhenTheirNodeIsKilled kills, for each client, the node
// that the first of its sentinels has named: sentinel and master are gone at once.
func TestClientsOfSentinelsGoOnWhenTheirNodeIsKilled(t *testing.T) {
	c := startProcesses(t, 3, "--sentinel-listen", "{sentinel}")
	var all []string
	for _, p := range c.nodes {
		all = append(all, p.sentinel)
	}
	for i, name := range []string{"go-redis", "redis-py", "ioredis", "redis"} {
		first := i % len(c.nodes)
		addrs := slices.Concat(all[first:], all[:first])
		t.Run(name, func(t *testing.T) {
			writing := make(chan struct{})
			gap := make(chan time.Duration, 1)
			go func() { gap <- sentinelClient(t, name, addrs, writing) }()
			select {
			case <-writing:
			case <-gap:
				return // it has failed, or is not installed
			}
			c.kill(c.nodes[first])
			if longest := <-gap; longest > sentinelGap || longest == 0 {
				t.Errorf("%v without a write", longest)
			} else {
				t.Logf("%v without a write", longest)
			}
		})
		select {
		case <-c.nodes[first].waited:
			c.start(c.nodes[first])
			c.awaitReady(c.nodes[first])
		default:
		}
	}
}

// sentinelClient writes through a client, closes writing once it does, and returns the
// longest time that it could not; 0 if it failed.
func sentinelClient(t *testing.T, name string, addrs []string, writing chan struct{}) time.Duration {
	list := strings.Join(addrs, ",")
	switch name {
	case "go-redis":
		return goSentinel(t, addrs, writing)
	case "redis-py":
		if exec.Command("/usr/bin/python3", "-c", "import redis").Run() != nil {
			absent(t, "Debian's python3-redis is not installed")
			return 0
		}
		return sentinelProgram(t, writing, "/usr/bin/python3", "clients/sentinel.py", list)
	}
	if _, err := os.Stat("clients/node_modules"); err != nil {
		absent(t, "run 'npm ci' in integration/clients first")
		return 0
	}
	return sentinelProgram(t, writing, "node", "clients/sentinel.mjs", name, list)
}

// absent is refuse for goroutines other than the test's.
func absent(t *testing.T, why string) {
	if os.Getenv("REDYNAMO_REQUIRE") != "" {
		t.Errorf("must run here: %s", why)
		return
	}
	t.Log("skipped: " + why)
}

// sentinelProgram runs a client in another language.
func sentinelProgram(t *testing.T, writing chan struct{}, name string, args ...string) time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return 0
	}
	last := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if last = lines.Text(); last == "writing" {
			close(writing)
		}
	}
	seconds, bad := strconv.ParseFloat(last, 64)
	if err := cmd.Wait(); err != nil || bad != nil {
		t.Errorf("%s %v: %v, %v\n%s", name, args, err, bad, said.String())
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

func goSentinel(t *testing.T, addrs []string, writing chan struct{}) time.Duration {
	ctx := t.Context()
	cl := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "mymaster", SentinelAddrs: addrs, DialTimeout: time.Second, ReadTimeout: 2 * time.Second,
		DialerRetries: 1, // it would try the dead sentinel five times, and each of these four
	})
	defer func() { _ = cl.Close() }() // the test is over
	last, longest := time.Now(), time.Duration(0)
	var end time.Time
	written := 0
	for giveUp := last.Add(time.Minute); end.IsZero() || time.Now().Before(end); {
		if err := cl.Set(ctx, fmt.Sprint("go:", written), written, 0).Err(); err != nil {
			if time.Now().After(giveUp) {
				t.Error(err)
				return 0
			}
			continue
		}
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		if written++; written == 20 {
			close(writing)
			longest, end = 0, now.Add(8*time.Second)
		}
	}
	longest = max(longest, time.Since(last))
	for i := 0; i < written; i += 7 {
		if got, err := cl.Get(ctx, fmt.Sprint("go:", i)).Int(); err != nil || got != i {
			t.Errorf("value %d is %d, %v", i, got, err)
			return 0
		}
	}
	return longest
}
