package resp

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/membership/ring"
)

// threeNodes is a view of nodes 1, 2, 3 with three owners per slot: thirds of
// the slots in turn, and a lone slot in the midst of the first third.
func threeNodes(version uint64, down ...ring.NodeID) *View {
	var members []Member
	for _, id := range []ring.NodeID{3, 1, 2} {
		members = append(members, Member{
			ID: id, Host: fmt.Sprintf("10.0.0.%d", id), Plain: 7000 + int(id), Cluster: 7100 + int(id), Bus: 7946,
			Alive: !slices.Contains(down, id),
		})
	}
	return NewView(version, 0x1234_5678_9abc_def0, 1, members, func(slot uint16) []ring.NodeID {
		first := int(slot) * 3 / ring.Slots
		if slot == 100 {
			first = 2
		}
		return []ring.NodeID{ring.NodeID(first + 1), ring.NodeID((first+1)%3 + 1), ring.NodeID((first+2)%3 + 1)}
	})
}

func openClusterDoor(t *testing.T, v *View) *door {
	d := openDoor(t, func(c *Config) { c.Door = Cluster })
	d.admin.view.Store(v)
	return d
}

func TestViewHasEverySlotOnceAndLiveOwnersFirst(t *testing.T) {
	v := threeNodes(1, 2)
	next := 0
	for _, run := range v.Runs {
		if int(run.First) != next {
			t.Errorf("a run begins at %d, want %d", run.First, next)
		}
		next = int(run.Last) + 1
		if len(run.Owners) != 3 || v.Members[run.Owners[2]].ID != 2 {
			t.Errorf("run %v does not end with the node that is down", run)
		}
	}
	if next != ring.Slots || len(v.Runs) != 4 {
		t.Errorf("%d runs up to %d", len(v.Runs), next)
	}
	for slot, want := range map[uint16]ring.NodeID{0: 1, 100: 3, 101: 1, 6000: 3, 16383: 3} {
		if got := v.First(slot).ID; got != want {
			t.Errorf("slot %d: first is %d, want %d", slot, got, want)
		}
	}
	if empty := NewView(1, 1, 1, nil, nil); len(empty.Runs) != 0 {
		t.Errorf("without members there are runs: %v", empty.Runs)
	}
}

func TestClusterCommandsPublishTheView(t *testing.T) {
	d := openClusterDoor(t, threeNodes(1, 2))
	c := d.connect()
	slots := c.line("CLUSTER SLOTS")
	member := func(id ring.NodeID) string {
		return fmt.Sprintf("*4\r\n$8\r\n10.0.0.%d\r\n:710%d\r\n$40\r\n%s\r\n*0\r\n", id, id, id.Hex40())
	}
	// Both first owners are met as masters before they are met as replicas.
	want := "*5\r\n*3\r\n:0\r\n:0\r\n" + member(1) + "*3\r\n:100\r\n:100\r\n" + member(3) +
		"*4\r\n:1\r\n:99\r\n" + member(1) + member(3) +
		"*4\r\n:101\r\n:5461\r\n" + member(1) + member(3) +
		"*4\r\n:5462\r\n:16383\r\n" + member(3) + member(1)
	if slots != want {
		t.Errorf("CLUSTER SLOTS: %q, want %q", slots, want)
	}
	if strings.Contains(slots, "10.0.0.2") {
		t.Errorf("CLUSTER SLOTS names the node that is down: %q", slots)
	}
	nodes := c.line("CLUSTER NODES")
	for _, want := range []string{
		ring.NodeID(1).Hex40() + " 10.0.0.1:7101@7946 myself,master - 0 0 20015998343868 connected 0-99 101-5461\n",
		ring.NodeID(2).Hex40() + " 10.0.0.2:7102@7946 master,fail? - 0 0 20015998343868 disconnected\n",
		ring.NodeID(3).Hex40() + " 10.0.0.3:7103@7946 master - 0 0 20015998343868 connected 100 5462-16383\n",
	} {
		if !strings.Contains(nodes, want) {
			t.Errorf("CLUSTER NODES lacks %q:\n%s", want, nodes)
		}
	}
	info := c.line("CLUSTER INFO")
	for _, want := range []string{"cluster_state:ok", "cluster_slots_assigned:16384", "cluster_slots_ok:16384", "cluster_known_nodes:3", "cluster_size:2"} {
		if !strings.Contains(info, want+"\r\n") {
			t.Errorf("CLUSTER INFO lacks %s:\n%s", want, info)
		}
	}
	c.expect(":12182\r\n", "CLUSTER", "KEYSLOT", "foo")
	c.expect("+OK\r\n", "READONLY")
	c.expect("+OK\r\n", "READWRITE")
	c.expect("+OK\r\n", "ASKING")
	c.expect("-ERR SELECT is not allowed in cluster mode\r\n", "SELECT", "1")
	c.line("HELLO 3")
	shards := c.line("CLUSTER SHARDS")
	if !strings.HasPrefix(shards, "*4\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:99\r\n$5\r\nnodes\r\n*2\r\n%7\r\n$2\r\nid\r\n") {
		t.Errorf("CLUSTER SHARDS: %q", shards)
	}
	if nodes := c.line("CLUSTER NODES"); nodes[0] != '=' {
		t.Errorf("CLUSTER NODES is no verbatim string in RESP3: %q", nodes)
	}
}

func TestPlainDoorRefusesClusterCommandsAndNeverRedirects(t *testing.T) {
	d := openDoor(t)
	d.admin.view.Store(threeNodes(1))
	c := d.connect()
	d.admin.view.Store(threeNodes(2))
	for _, line := range []string{"CLUSTER SLOTS", "CLUSTER INFO", "CLUSTER KEYSLOT a", "CLUSTER HELP", "READONLY", "READWRITE", "ASKING"} {
		if got := c.line(line); got != "-ERR This instance has cluster support disabled\r\n" {
			t.Errorf("%s: %q", line, got)
		}
	}
	c.expect("$-1\r\n", "GET", "k")
	c.expect("*2\r\n$-1\r\n$-1\r\n", "MGET", "a", "b")
}

func TestAfterAMapChangeEachConnectionIsRedirectedOnce(t *testing.T) {
	d := openClusterDoor(t, threeNodes(1))
	old, idle := d.connect(), d.connect()
	old.expect("$-1\r\n", "GET", "foo") // slot 12182, of node 3
	idle.expect("+PONG\r\n", "PING")
	d.admin.view.Store(threeNodes(2, 3))
	fresh := d.connect()
	fresh.expect("$-1\r\n", "GET", "foo")
	for name, c := range map[string]*dataWire{"old": old, "idle": idle} {
		c.expect("+PONG\r\n", "PING") // not keyed
		if got := c.line("SET foo bar"); got != "-MOVED 12182 10.0.0.1:7101\r\n" {
			t.Errorf("%s: %q", name, got)
		}
		c.expect("+OK\r\n", "SET", "foo", "bar")
		c.expect("$3\r\nbar\r\n", "GET", "foo")
	}
	got := old.pipeline([]string{"GET", "a"}, []string{"GET", "b"})
	d.admin.view.Store(threeNodes(3))
	got = append(got, old.pipeline([]string{"GET", "a"}, []string{"GET", "b"}, []string{"GET", "foo"})...)
	if want := []string{"$-1\r\n", "$-1\r\n", "-MOVED 15495 10.0.0.3:7103\r\n", "$-1\r\n", "$3\r\nbar\r\n"}; !slices.Equal(got, want) {
		t.Errorf("pipeline over a change: %q", got)
	}
}

func TestClusterDoorRefusesKeysOfDifferentSlots(t *testing.T) {
	d := openClusterDoor(t, threeNodes(1))
	c := d.connect()
	for _, line := range []string{"MGET a b", "DEL a b", "MSET a 1 b 2", "EXISTS {t}a {t}b c"} {
		if got := c.line(line); got != "-CROSSSLOT Keys in request don't hash to the same slot\r\n" {
			t.Errorf("%s: %q", line, got)
		}
	}
	c.expect("+OK\r\n", "MSET", "{t}a", "1", "{t}b", "2")
	c.expect(":2\r\n", "EXISTS", "{t}a", "{t}b")
}

func TestSlotCommandsCheckTheirNumbers(t *testing.T) {
	d := openClusterDoor(t, threeNodes(1))
	c := d.connect()
	for i := range 50 {
		c.do("SET", "{foo}"+strconv.Itoa(i), "v")
		c.do("SET", strconv.Itoa(i), "v")
	}
	for line, want := range map[string]string{
		"CLUSTER COUNTKEYSINSLOT x":       "-ERR value is not an integer or out of range\r\n",
		"CLUSTER COUNTKEYSINSLOT 16384":   "-ERR Invalid slot\r\n",
		"CLUSTER GETKEYSINSLOT 16384 1":   "-ERR Invalid slot or number of keys\r\n",
		"CLUSTER GETKEYSINSLOT 1 -1":      "-ERR Invalid slot or number of keys\r\n",
		"CLUSTER GETKEYSINSLOT x 1":       "-ERR value is not an integer or out of range\r\n",
		"CLUSTER GETKEYSINSLOT 12183 100": "*0\r\n",
		"CLUSTER REPLICAS x":              "-ERR Unknown node x\r\n",
	} {
		if got := c.line(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if got := c.line("CLUSTER GETKEYSINSLOT 12182 100"); !strings.HasPrefix(got, "*50\r\n") || strings.Count(got, "{foo}") != 50 {
		t.Errorf("keys of the slot: %q", got)
	}
	if got := c.line("CLUSTER GETKEYSINSLOT 12182 7"); !strings.HasPrefix(got, "*7\r\n") {
		t.Errorf("seven keys of the slot: %q", got)
	}
}

func TestRingCommandsAnswerOrSayThatTheyCannotYet(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	if got := c.line("RING OWNERS k"); !strings.HasPrefix(got, "*2\r\n*10\r\n$4\r\nnode\r\n$16\r\n0000000000000001\r\n$7\r\naddress\r\n$7\r\nh1:7001\r\n") {
		t.Errorf("owners: %q", got)
	}
	if got := c.line("ring status"); !strings.Contains(got, "$7\r\nmembers\r\n*1\r\n*18\r\n") || !strings.HasPrefix(got, "*16\r\n$5\r\nepoch\r\n$3\r\nabc\r\n") {
		t.Errorf("status: %q", got)
	}
	for _, command := range []string{"HINTS", "ring hints"} {
		got := c.line(command)
		for _, want := range []string{"*1\r\n*24\r\n$4\r\nnode\r\n$16\r\n0000000000000002\r\n", "$4\r\nrows\r\n$1\r\n3\r\n",
			"$9\r\noldest-ms\r\n$4\r\n1500\r\n", "$11\r\nover-budget\r\n$5\r\nfalse\r\n", "$5\r\nstate\r\n$10\r\ndelivering\r\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q in it", command, got, want)
			}
		}
	}
	c.expect("-ERR syntax error\r\n", "HINTS", "x")
	c.expect("-ERR unknown subcommand 'x'. Try RING HELP.\r\n", "RING", "x")
}

func TestRepairTakesSlotsAndTellsItsState(t *testing.T) {
	for line, want := range map[string][]ring.Slot{
		"REPAIR": {0, 16383}, "repair 7": {7, 7}, "RING REPAIR 7 16383": {7, 16383}, "RING REPAIR 5": {5, 5},
		"REPAIR 7 6": nil, "REPAIR -1": nil, "REPAIR 16384": nil, "REPAIR 1 2 3": nil, "REPAIR x": nil, "REPAIR status 1": nil,
	} {
		d := openDoor(t)
		c := d.connect()
		got := c.line(line)
		if want == nil && !strings.HasPrefix(got, "-ERR syntax error") || want != nil && got != "+OK\r\n" || !slices.Equal(d.admin.repaired, want) {
			t.Errorf("%s: %q, slots %v, want %v", line, got, d.admin.repaired, want)
		}
		if want != nil {
			c.expect("-ERR a repair is under way, see REPAIR STATUS\r\n", "REPAIR")
		}
		c.expect("*2\r\n$5\r\nstate\r\n$4\r\ndone\r\n", "REPAIR", "STATUS")
	}
}

func TestGoRedisWorksOnBothDoors(t *testing.T) {
	ctx := context.Background()
	d := openDoor(t)
	for _, protocol := range []int{2, 3} {
		c := redis.NewClient(&redis.Options{Protocol: protocol, ClientName: "me", Dialer: func(context.Context, string, string) (net.Conn, error) {
			return d.ln.dial(), nil
		}})
		if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
			t.Errorf("protocol %d: %q, %v", protocol, got, err)
		}
		if rows, err := c.Command(ctx).Result(); err != nil || rows["get"] == nil || rows["get"].FirstKeyPos != 1 || !rows["get"].ReadOnly {
			t.Errorf("protocol %d: COMMAND: %v", protocol, err)
		}
		if info, err := c.ClientInfo(ctx).Result(); err != nil || info.Name != "me" || info.LibName == "" {
			t.Errorf("protocol %d: CLIENT INFO: %+v, %v", protocol, info, err)
		}
		if all, err := c.ConfigGet(ctx, "max*").Result(); err != nil || all["maxclients"] != "10000" {
			t.Errorf("protocol %d: CONFIG GET: %v, %v", protocol, all, err)
		}
		if n, err := c.Exists(ctx, "k", "none").Result(); err != nil || n != 1 {
			t.Errorf("protocol %d: EXISTS: %d, %v", protocol, n, err)
		}
		pipe := c.Pipeline()
		for i := range 100 {
			pipe.Set(ctx, strconv.Itoa(i), i, 0)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Errorf("protocol %d: pipeline: %v", protocol, err)
		}
		_ = c.Close()
	}
	cd := openClusterDoor(t, threeNodes(1))
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"seed:1"}, Dialer: func(context.Context, string, string) (net.Conn, error) {
		return cd.ln.dial(), nil
	}})
	defer c.Close()
	for i := range 100 {
		if err := c.Set(ctx, strconv.Itoa(i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	cd.admin.view.Store(threeNodes(2, 3))
	for i := range 100 {
		if got, err := c.Get(ctx, strconv.Itoa(i)).Result(); err != nil || got != strconv.Itoa(i) {
			t.Errorf("after the map changed: %q, %v", got, err)
		}
	}
	if cd.srv.counts.nudges.Load() == 0 {
		t.Error("nobody was redirected")
	}
}
