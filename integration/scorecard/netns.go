//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaces is a network in which every node has a namespace of its own, on a
// bridge in a namespace that is not the machine's: there the firewall would
// drop what is bridged. Clients live where the bridge is and reach every node,
// whatever is cut between nodes.
type namespaces struct {
	prefix string
	hub    int   // descriptor of the namespace of the bridge
	nodes  []int // and of those of the nodes
}

const (
	netnsDir = "/run/netns"
	hubHost  = "10.77.0.254"
)

func (n *namespaces) host(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

func (n *namespaces) addrs(i int) (a [5]string) {
	for k, port := range []string{"6379", "6380", "7379", "7946", "8379"} {
		a[k] = n.host(i) + ":" + port
	}
	return a
}

func (n *namespaces) name(i int) string { return fmt.Sprintf("%s-n%d", n.prefix, i) }

func (n *namespaces) hubName() string { return n.prefix + "-hub" }

// newNamespaces makes a network for the given number of nodes.
func newNamespaces(prefix string, nodes int) (*namespaces, error) {
	n := &namespaces{prefix: prefix, hub: -1}
	hub := n.hubName()
	steps := []string{
		"netns add " + hub,
		"-n " + hub + " link set lo up",
		"-n " + hub + " link add br0 type bridge",
		"-n " + hub + " addr add " + hubHost + "/24 dev br0",
		"-n " + hub + " link set br0 up",
	}
	for i := range nodes {
		at := n.name(i)
		steps = append(steps,
			"netns add "+at,
			fmt.Sprintf("link add eth0 netns %s type veth peer name p%d netns %s", at, i, hub),
			fmt.Sprintf("-n %s link set p%d master br0 up", hub, i),
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", at, n.host(i)),
			"-n "+at+" link set lo up",
			"-n "+at+" link set eth0 up",
		)
	}
	for _, s := range steps {
		if err := command("ip", strings.Fields(s)...); err != nil {
			return n, err
		}
	}
	var err error
	if n.hub, err = openNetns(hub); err != nil {
		return n, err
	}
	for i := range nodes {
		fd, err := openNetns(n.name(i))
		if err != nil {
			return n, err
		}
		n.nodes = append(n.nodes, fd)
	}
	return n, nil
}

func openNetns(name string) (int, error) {
	fd, err := unix.Open(filepath.Join(netnsDir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open namespace %s: %w", name, err)
	}
	return fd, nil
}

// close removes the network; links go with their namespaces.
func (n *namespaces) close() {
	for _, fd := range append(n.nodes, n.hub) {
		if fd >= 0 {
			_ = unix.Close(fd) // it was only read
		}
	}
	removeNetns(n.prefix + "-")
}

// removeNetns deletes the namespaces whose name has the prefix.
func removeNetns(prefix string) {
	entries, err := os.ReadDir(netnsDir)
	if err != nil {
		return // no namespace was ever made
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			_ = command("ip", "netns", "del", e.Name()) // the next start tries again
		}
	}
}

// inNetns runs f with the calling thread in another namespace. Sockets opened
// and processes started by f belong there.
func inNetns(fd int, f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and ends with its goroutine: nobody else may
		// be given one that is elsewhere.
		return fmt.Errorf("leave namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return err
}

// dial connects from where the clients live.
func (n *namespaces) dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	var d net.Dialer
	err = inNetns(n.hub, func() error {
		conn, err = d.DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// listen opens a port where the clients live.
func (n *namespaces) listen() (l net.Listener, err error) {
	err = inNetns(n.hub, func() error {
		l, err = net.Listen("tcp", hubHost+":0")
		return err
	})
	return l, err
}

func (n *namespaces) start(i int, cmd *exec.Cmd) error { return inNetns(n.nodes[i], cmd.Start) }

// iptables changes the rules of node i.
func (n *namespaces) iptables(i int, words ...string) error {
	return inNetns(n.nodes[i], func() error { return command("iptables", append([]string{"-w"}, words...)...) })
}

// hosts is the hosts of nodes as iptables wants them.
func (n *namespaces) hosts(nodes []int) string {
	var list []string
	for _, i := range nodes {
		list = append(list, n.host(i))
	}
	return strings.Join(list, ",")
}

// cutOneWay drops, at node to, all that comes from the given nodes.
func (n *namespaces) cutOneWay(from []int, to int) error {
	return n.iptables(to, "-A", "INPUT", "-s", n.hosts(from), "-j", "DROP")
}

// cut separates two groups of nodes both ways.
func (n *namespaces) cut(a, b []int) error {
	for _, i := range a {
		if err := n.cutOneWay(b, i); err != nil {
			return err
		}
	}
	for _, i := range b {
		if err := n.cutOneWay(a, i); err != nil {
			return err
		}
	}
	return nil
}

// heal removes every cut.
func (n *namespaces) heal() error {
	for i := range n.nodes {
		if err := n.iptables(i, "-F", "INPUT"); err != nil {
			return err
		}
	}
	return nil
}

// reroute sends what node from sends to node to's peer door to addr instead.
// Connections that exist stay as they are.
func (n *namespaces) reroute(from, to int, addr string) error {
	return n.iptables(from, "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", n.host(to), "--dport", "7379", "-j", "DNAT", "--to-destination", addr)
}

// command runs a program that must succeed.
func command(name string, words ...string) error {
	out, err := exec.Command(name, words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
