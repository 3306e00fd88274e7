package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// ringCmd is a thin client of the RING commands of a node.
type ringCmd struct {
	Status   ringStatusCmd   `cmd:"" help:"Show the members and what they own."`
	Plan     ringPlanCmd     `cmd:"" help:"Show what a change would move; it is applied by its id."`
	Apply    ringApplyCmd    `cmd:"" help:"Carry out a plan."`
	Add      ringAddCmd      `cmd:"" help:"Make nodes members that were started with --no-auto-join."`
	Remove   ringRemoveCmd   `cmd:"" help:"Have members give what they hold to others, and leave."`
	Replace  ringReplaceCmd  `cmd:"" help:"Put a node into the place of a member."`
	Forget   ringForgetCmd   `cmd:"" help:"Give up a member that will never be back, with what only it held."`
	Finalise ringFinaliseCmd `cmd:"" help:"End an upgrade: raise the level of the cluster, after which no older release can be put back."`
	Watch    ringWatchCmd    `cmd:"" help:"Follow the present change of the ring to its end."`
}

// ringAddr is how a node is reached.
type ringAddr struct {
	Addr     string        `help:"Plain door of any node." default:"127.0.0.1:6379" placeholder:"HOST:PORT"`
	AuthPass string        `help:"Password to log in with." placeholder:"SECRET"`
	Timeout  time.Duration `help:"How long to wait for one answer." default:"30s"`
	clientTLS
}

// dial returns a client that asks once: a change of the ring is not repeated
// behind its caller's back.
func (a ringAddr) dial() (*redis.Client, error) {
	secure, err := a.config()
	if err != nil {
		return nil, err
	}
	logging.Disable() // what goes wrong is answered as an error
	return redis.NewClient(&redis.Options{
		TLSConfig: secure,
		Addr:      a.Addr, Password: a.AuthPass, ReadTimeout: a.Timeout, DialTimeout: min(a.Timeout, 5*time.Second),
		MaxRetries: -1, Protocol: 3, DisableIdentity: true, PoolSize: 1,
	}), nil
}

// ask sends one RING command and returns its answer.
func (a ringAddr) ask(ctx context.Context, words ...string) (any, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	args := []any{"RING"}
	for _, w := range words {
		args = append(args, w)
	}
	return c.Do(ctx, args...).Result()
}

// told says what came of a change. One that was made before answers so.
func (a ringAddr) told(con *console, answer any) {
	if answer != "OK" {
		fmt.Fprintln(con.out, "nothing was to be done: it is so already")
		return
	}
	fmt.Fprintf(con.out, "applied; follow it with: redynamo ring watch --addr %s\n", a.Addr)
}

// reply is an answer that is a map.
type reply map[string]any

func (a ringAddr) askMap(ctx context.Context, words ...string) (reply, error) {
	answer, err := a.ask(ctx, words...)
	if err != nil {
		return nil, err
	}
	r, ok := asReply(answer)
	if !ok {
		return nil, fmt.Errorf("RING %s answers %T, is this a redynamo node?", words[0], answer)
	}
	return r, nil
}

func asReply(v any) (reply, bool) {
	m, ok := v.(map[any]any)
	if !ok {
		return nil, false
	}
	r := reply{}
	for k, v := range m {
		r[fmt.Sprint(k)] = v
	}
	return r, true
}

func (r reply) text(name string) string {
	if v, ok := r[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

func (r reply) number(name string) int64 {
	n, _ := strconv.ParseInt(r.text(name), 10, 64) // an empty one is nought
	return n
}

// rows are the maps in a list.
func (r reply) rows(name string) (rows []reply) {
	list, _ := r[name].([]any)
	for _, v := range list {
		if row, ok := asReply(v); ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// table prints some columns of rows.
func table(out io.Writer, rows []reply, columns ...string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, r := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = r.text(c)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

type ringStatusCmd struct {
	ringAddr
}

// Run prints the ring.
func (c *ringStatusCmd) Run(ctx context.Context, con *console) error {
	r, err := c.askMap(ctx, "STATUS")
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "epoch %s, %s partitions, N=%s R=%s W=%s, level %s (this node serves up to %s)\n",
		r.text("epoch"), r.text("units"), r.text("n"), r.text("r"), r.text("w"), r.text("level"), r.text("max-level"))
	if change := r.text("change"); change != "" {
		fmt.Fprintf(con.out, "change: %s\n", change)
	}
	columns := []string{"node", "address", "zone", "weight", "state", "partitions", "first", "max-level"}
	if r.text("change") != "" {
		columns = append(columns, "step")
	}
	if err := table(con.out, r.rows("members"), columns...); err != nil {
		return err
	}
	if staged := r.rows("staged"); len(staged) > 0 {
		fmt.Fprint(con.out, "\nno members yet (redynamo ring add, ring replace):\n")
		return table(con.out, staged, "node", "address", "zone")
	}
	return nil
}

type ringPlanCmd struct {
	ringAddr
	Change []string `arg:"" passthrough:"" help:"ADD node ... REMOVE node ... REPLACE old new WEIGHT node weight ZONE node zone FORCE"`
}

// Run prints a plan and how to apply it.
func (c *ringPlanCmd) Run(ctx context.Context, con *console) error {
	id, err := showPlan(ctx, con, c.ringAddr, c.Change)
	if err == nil {
		fmt.Fprintf(con.out, "\nTo carry it out: redynamo ring apply --addr %s %s\n", c.Addr, id)
	}
	return err
}

// showPlan has a plan made and prints it.
func showPlan(ctx context.Context, con *console, a ringAddr, change []string) (id string, err error) {
	p, err := a.askMap(ctx, append([]string{"PLAN"}, change...)...)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(con.out, "plan %s: ring %s -> %s\n", p.text("plan"), p.text("from-epoch"), p.text("to-epoch"))
	fmt.Fprintf(con.out, "  %s partitions change owners; %s copies move (at least %s), about %s\n", p.text("partitions"), p.text("copies"), p.text("copies-least"), inBytes(p.number("bytes")))
	if s := p.number("seconds"); s > 0 {
		fmt.Fprintf(con.out, "  it takes about %v at the present pace\n", time.Duration(s)*time.Second)
	}
	fmt.Fprintf(con.out, "  balance %s -> %s; whole zones that may fail without losing a key: %s -> %s\n",
		p.text("balance-before"), p.text("balance-after"), p.text("zone-failures-survived-before"), p.text("zone-failures-survived-after"))
	warnings, _ := p["warnings"].([]any)
	for _, w := range warnings {
		fmt.Fprintf(con.out, "  WARNING: %v\n", w)
	}
	fmt.Fprintln(con.out)
	return p.text("plan"), table(con.out, p.rows("nodes"), "node", "zone", "before", "after", "gains", "loses", "bytes-in")
}

// inBytes is a size for people.
func inBytes(n int64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 10<<10 {
			return fmt.Sprintf("%d %s", n, u)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d TiB", n)
}

type ringApplyCmd struct {
	ringAddr
	Plan string `arg:"" help:"Id of the plan."`
}

// Run carries a plan out.
func (c *ringApplyCmd) Run(ctx context.Context, con *console) error {
	answer, err := c.ask(ctx, "APPLY", c.Plan)
	if err != nil {
		return err
	}
	c.told(con, answer)
	return nil
}

// ringChange is a command that plans, asks and applies.
type ringChange struct {
	ringAddr
	Yes   bool `help:"Do not ask before the change is carried out." short:"y"`
	Force bool `help:"Overrule what is refused as unsafe."`
}

// change shows the plan, has it confirmed and applies it.
func (c *ringChange) change(ctx context.Context, con *console, words ...string) error {
	if c.Force {
		words = append(words, "FORCE")
	}
	id, err := showPlan(ctx, con, c.ringAddr, words)
	if err != nil {
		return err
	}
	if err := c.confirm(con); err != nil {
		return err
	}
	return (&ringApplyCmd{ringAddr: c.ringAddr, Plan: id}).Run(ctx, con)
}

// errDeclined ends a command that was not confirmed.
var errDeclined = errors.New("nothing was changed")

func (c *ringChange) confirm(con *console) error {
	if c.Yes {
		return nil
	}
	fmt.Fprint(con.out, "\nCarry it out? [y/N] ")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && line == "" || !strings.EqualFold(strings.TrimSpace(line), "y") {
		return errDeclined
	}
	return nil
}

type ringAddCmd struct {
	ringChange
	Node   []string `arg:"" help:"Nodes that were started with --join and --no-auto-join, by id or address."`
	Weight *int     `help:"Their relative capacity. Default: what each was started with."`
}

// Run adds the nodes.
func (c *ringAddCmd) Run(ctx context.Context, con *console) error {
	words := append([]string{"ADD"}, c.Node...)
	for _, n := range c.Node {
		if c.Weight != nil {
			words = append(words, "WEIGHT", n, strconv.Itoa(*c.Weight))
		}
	}
	return c.change(ctx, con, words...)
}

type ringRemoveCmd struct {
	ringChange
	Node []string `arg:"" help:"Members, by id or address."`
}

// Run removes the nodes.
func (c *ringRemoveCmd) Run(ctx context.Context, con *console) error {
	return c.change(ctx, con, append([]string{"REMOVE"}, c.Node...)...)
}

type ringReplaceCmd struct {
	ringChange
	Old string `arg:"" help:"The member to be replaced."`
	New string `arg:"" help:"The node that takes its place; it was started with --join and --no-auto-join."`
}

// Run replaces the node.
func (c *ringReplaceCmd) Run(ctx context.Context, con *console) error {
	return c.change(ctx, con, "REPLACE", c.Old, c.New)
}

type ringFinaliseCmd struct {
	ringAddr
}

// Run raises the level of the cluster.
func (c *ringFinaliseCmd) Run(ctx context.Context, con *console) error {
	answer, err := c.ask(ctx, "FINALISE")
	switch {
	case err != nil:
		return err
	case answer != "OK":
		fmt.Fprintln(con.out, "nothing was to be done: it is so already")
	default:
		fmt.Fprintln(con.out, "the level of the cluster is raised: no older release can be put back from now on")
	}
	return nil
}

type ringForgetCmd struct {
	ringChange
	Node string `arg:"" help:"The member, by id or address."`
}

// Run forgets the node.
func (c *ringForgetCmd) Run(ctx context.Context, con *console) error {
	fmt.Fprintf(con.out, "The ring goes on without %s. What was acknowledged and only it holds is given up.\n", c.Node)
	if err := c.confirm(con); err != nil {
		return err
	}
	words := []string{"FORGET", c.Node}
	if c.Force {
		words = append(words, "FORCE")
	}
	answer, err := c.ask(ctx, words...)
	if err != nil {
		return err
	}
	c.told(con, answer)
	return nil
}
