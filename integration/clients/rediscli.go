package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// cli runs redis-cli once for each call, as scripts do.
type cli struct {
	door
}

func connectCLI(d door) (session, error) { return cli{d}, nil }

func (c cli) version() string { return toolVersion("redis-cli") }

// toolVersion is what a tool of Redis says of itself: NAME 7.0.15 and more.
func toolVersion(name string) string {
	out, _ := tool(nil, name, "--version") // an empty answer is seen below
	words := strings.Fields(out)
	if len(words) < 2 {
		return "unknown"
	}
	return words[1]
}

// tool runs a program, and takes for an error also what it merely prints as one.
func tool(stdin []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s%s", err, bytes.TrimSpace(complaint.Bytes()), bytes.TrimSpace(out))
	}
	return string(out), nil
}

// flags are what comes before the words of a command.
func (c cli) flags() []string {
	host, port, _ := net.SplitHostPort(c.addrs[0]) // or the tool will complain
	flags := []string{"-e", "-h", host, "-p", port}
	if c.protocol == 3 {
		flags = append(flags, "-3")
	}
	if c.cluster {
		flags = append(flags, "-c")
	}
	return flags
}

func (c cli) do(words ...string) (string, error) {
	out, err := tool(nil, "redis-cli", append(c.flags(), words...)...)
	return strings.TrimSuffix(out, "\n"), err
}

func (c cli) set(key, value string, life time.Duration) error {
	if life > 0 {
		_, err := c.do("SET", key, value, "PX", strconv.FormatInt(life.Milliseconds(), 10))
		return err
	}
	_, err := tool([]byte(value), "redis-cli", append(c.flags(), "-x", "SET", key)...)
	return err
}

func (c cli) get(key string) (string, bool, error) {
	n, err := c.do("EXISTS", key)
	if err != nil || n == "0" {
		return "", false, err
	}
	v, err := c.do("GET", key)
	return v, err == nil, err
}

func (c cli) life(key string) (time.Duration, error) {
	out, err := c.do("PTTL", key)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(out + "ms")
}

// pipeline is mass insertion: requests as they go over the wire.
func (c cli) pipeline(keys, values []string) error {
	var all bytes.Buffer
	for i := range keys {
		fmt.Fprintf(&all, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(keys[i]), keys[i], len(values[i]), values[i])
	}
	out, err := tool(all.Bytes(), "redis-cli", append(c.flags(), "--pipe")...)
	if want := fmt.Sprintf("errors: 0, replies: %d", len(keys)); err == nil && !strings.Contains(out, want) {
		err = errors.New(out)
	}
	return err
}

// scan asks each node in turn at the cluster door.
func (c cli) scan(pattern string) (all []string, err error) {
	for i := range c.addrs {
		at := cli{c.from(i)}
		out, err := at.do("--scan", "--pattern", pattern)
		if err != nil {
			return nil, err
		}
		if all = append(all, strings.Fields(out)...); !c.cluster {
			break
		}
	}
	return all, nil
}

func (c cli) transact(key, value string) (string, error) {
	out, err := tool(fmt.Appendf(nil, "multi\nset %s %q\nget %s\nexec\n", key, value, key), "redis-cli", c.flags()...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1], nil
}

func (c cli) subscribe(channel string) (<-chan string, func(), error) {
	cmd := exec.Command("redis-cli", append(c.flags(), "SUBSCRIBE", channel)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	heard := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if !strings.HasSuffix(lines.Text(), "message") && lines.Text() != "message" {
				continue
			}
			lines.Scan() // the channel
			lines.Scan()
			heard <- lines.Text()
			return
		}
	}()
	return heard, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, nil // killed processes report that
}

func (c cli) publish(channel, text string) error {
	_, err := c.do("PUBLISH", channel, text)
	return err
}

// vctxGet has the answer shown as to a person, with quoted strings.
func (c cli) vctxGet(key string) (token string, values []string, err error) {
	out, err := c.do("--no-raw", "VCTX.GET", key)
	if err != nil {
		return "", nil, err
	}
	for i, line := range strings.Split(out, "\n") {
		_, quoted, found := strings.Cut(line, `"`)
		if !found {
			continue // an empty array
		}
		if quoted = `"` + quoted; i == 0 {
			token = quoted
			continue
		}
		v, err := strconv.Unquote(quoted)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", line, err)
		}
		values = append(values, v)
	}
	return token, values, nil
}

// vctxSet gives a token back as it was shown.
func (c cli) vctxSet(key, value, token string) (next string, live int64, err error) {
	out, err := c.do("--no-raw", "--quoted-input", "VCTX.SET", key, strconv.Quote(value), token)
	if err != nil {
		return "", 0, err
	}
	first, second, _ := strings.Cut(out, "\n")
	if _, err := fmt.Sscanf(second, "2) (integer) %d", &live); err != nil {
		return "", 0, fmt.Errorf("%s: %w", out, err)
	}
	return strings.TrimPrefix(first, "1) "), live, nil
}

func (c cli) close() {}
