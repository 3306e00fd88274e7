// Command clients drives clients that other people wrote against a running cluster,
// for the tests of package integration. This program has those in Go and the tools
// that come with Redis; beside it lie its like in other languages.
//
//	clients CLIENT plain|cluster PROTOCOL HOST:PORT,HOST:PORT,...          tries each feature
//	clients CLIENT plain|cluster PROTOCOL HOST:PORT,HOST:PORT,... write    writes until it is killed
//
// The first prints a line for the version of the client and one for each feature:
//
//	version 9.23.0
//	strings ok
//	multi no            the client, or its cluster form, does not offer it
//	vctx wrong TEXT     an answer was not what it must be
//
// The second writes about a hundred times a second, a tool ten times, as its users would: after an
// error it tries again, at another node if the client itself knows only one. Each
// write is a line: when it began and ended in milliseconds since 1970, and ok or what
// went wrong.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// errNotOffered is for what a client, or its form for clusters, does not have.
var errNotOffered = errors.New("the client does not offer this")

// A session is a client that is connected, behind the few calls that the checks make.
type session interface {
	version() string
	set(key, value string, life time.Duration) error
	get(key string) (value string, found bool, err error)
	life(key string) (time.Duration, error)
	pipeline(keys, values []string) error // sets all of them
	scan(pattern string) ([]string, error)
	transact(key, value string) (string, error) // sets and reads within MULTI and EXEC
	subscribe(channel string) (heard <-chan string, stop func(), err error)
	publish(channel, text string) error
	vctxGet(key string) (token string, values []string, err error)
	vctxSet(key, value, token string) (next string, live int64, err error)
	close()
}

// A door is what a client is pointed at.
type door struct {
	cluster  bool
	protocol int      // of RESP
	addrs    []string // of the nodes
}

// connectors are the clients of this program.
var connectors = map[string]func(door) (session, error){
	"go-redis":        connectGoRedis,
	"rueidis":         connectRueidis,
	"redigo":          connectRedigo,
	"redis-cli":       connectCLI,
	"redis-benchmark": connectBenchmark,
}

func main() {
	if len(os.Args) < 5 || connectors[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "clients CLIENT plain|cluster 2|3 HOST:PORT,... [write]")
		os.Exit(2)
	}
	d := door{cluster: os.Args[2] == "cluster", protocol: 2, addrs: strings.Split(os.Args[4], ",")}
	if os.Args[3] == "3" {
		d.protocol = 3
	}
	connect := connectors[os.Args[1]]
	if slices.Contains(os.Args[5:], "write") {
		// A tool is started for each write, and knows only the node that it is told.
		tool, pace := strings.HasPrefix(os.Args[1], "redis-"), 10*time.Millisecond
		if tool {
			pace *= 10
		}
		write(connect, d, !d.cluster || tool, pace, fmt.Sprintf("kill:%s:%s:", os.Args[1], os.Args[2]))
	}
	if err := try(connect, d, fmt.Sprintf("%s:%s:%s:", os.Args[1], os.Args[2], os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write never ends by itself. A client that is told its node is told the next one
// after an error; the others are left to find their way.
func write(connect func(door) (session, error), d door, told bool, pace time.Duration, prefix string) {
	var s session
	tick := time.NewTicker(pace)
	for i, at := 0, 0; ; i++ {
		<-tick.C
		begin, err := time.Now(), error(nil)
		if s == nil {
			s, err = connect(d.from(at))
		}
		if err == nil {
			err = s.set(fmt.Sprint(prefix, i%1000), fmt.Sprint(i), 0)
		}
		report(begin, err)
		if err != nil && told {
			if at++; s != nil {
				s.close()
			}
			s = nil
		}
	}
}

// report prints a line for one write. A reader that has gone ends the program.
func report(begin time.Time, err error) {
	what := "ok"
	if err != nil {
		what = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	if _, err := fmt.Println(begin.UnixMilli(), time.Now().UnixMilli(), what); err != nil {
		os.Exit(0)
	}
}

// from is the door with the address at index i, counted around, as the first one.
func (d door) from(i int) door {
	i %= len(d.addrs)
	d.addrs = slices.Concat(d.addrs[i:], d.addrs[:i])
	return d
}
