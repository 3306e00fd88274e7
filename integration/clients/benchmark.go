package main

import (
	"errors"
	"net"
	"strings"
	"time"
)

// benchmark runs redis-benchmark, which repeats any command but shows no answer.
type benchmark struct {
	door
}

func connectBenchmark(d door) (session, error) { return benchmark{d}, nil }

func (b benchmark) version() string { return toolVersion("redis-benchmark") }

func (b benchmark) run(stdin []byte, words ...string) error {
	host, port, _ := net.SplitHostPort(b.addrs[0]) // or the tool will complain
	flags := []string{"-h", host, "-p", port, "--csv"}
	if b.protocol == 3 {
		flags = append(flags, "-3")
	}
	if b.cluster {
		flags = append(flags, "--cluster")
	}
	out, err := tool(stdin, "redis-benchmark", append(flags, words...)...)
	if err == nil && (strings.Contains(out, "rror") || !strings.Contains(out, "rps")) {
		err = errors.New(out)
	}
	return err
}

func (b benchmark) set(key, value string, _ time.Duration) error {
	return b.run([]byte(value), "-c", "1", "-n", "1", "-x", "SET", key)
}

// pipeline makes random keys of its own, 20 in one go.
func (b benchmark) pipeline(keys, _ []string) error {
	return b.run(nil, "-n", "2000", "-c", "10", "-P", "20", "-r", "1000", "-t", "ping,set,get,incr")
}

func (b benchmark) get(string) (string, bool, error)                { return "", false, errNotOffered }
func (b benchmark) life(string) (time.Duration, error)              { return 0, errNotOffered }
func (b benchmark) scan(string) ([]string, error)                   { return nil, errNotOffered }
func (b benchmark) transact(string, string) (string, error)         { return "", errNotOffered }
func (b benchmark) subscribe(string) (<-chan string, func(), error) { return nil, nil, errNotOffered }
func (b benchmark) publish(string, string) error                    { return errNotOffered }
func (b benchmark) vctxGet(string) (string, []string, error)        { return "", nil, errNotOffered }
func (b benchmark) vctxSet(_, _, _ string) (string, int64, error)   { return "", 0, errNotOffered }
func (b benchmark) close()                                          {}
