package rpc

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
)

// codec is one message type as the tests below see it: recode decodes b and
// returns the message and its encoding.
type codec struct {
	name   string
	recode func(b []byte) (any, []byte, error)
}

func codecOf[M any](name string, decode func([]byte) (M, error), encode func([]byte, M) []byte) codec {
	return codec{name, func(b []byte) (any, []byte, error) {
		m, err := decode(b)
		if err != nil {
			return m, nil, err
		}
		return m, encode(nil, m), nil
	}}
}

func codecs() []codec {
	return []codec{
		codecOf("read request", DecodeReadRequest, AppendReadRequest),
		codecOf("read reply", DecodeReadReply, AppendReadReply),
		codecOf("merge request", DecodeMergeRequest, AppendMergeRequest),
		codecOf("write request", DecodeWriteRequest, AppendWriteRequest),
		codecOf("write reply", DecodeWriteReply, AppendWriteReply),
		codecOf("scan request", DecodeScanRequest, AppendScanRequest),
		codecOf("scan reply", DecodeScanReply, AppendScanReply),
		codecOf("count request", DecodeCountRequest, AppendCountRequest),
		codecOf("count reply", DecodeCountReply, AppendCountReply),
		codecOf("status request", DecodeStatusRequest, AppendStatusRequest),
		codecOf("status reply", DecodeStatusReply, AppendStatusReply),
		codecOf("inspect request", DecodeInspectRequest, AppendInspectRequest),
		codecOf("inspect reply", DecodeInspectReply, AppendInspectReply),
		codecOf("deliver request", DecodeDeliverRequest, AppendDeliverRequest),
		codecOf("deliver reply", DecodeDeliverReply, AppendDeliverReply),
		codecOf("nodes request", DecodeNodesRequest, AppendNodesRequest),
		codecOf("nodes reply", DecodeNodesReply, AppendNodesReply),
		codecOf("list request", DecodeListRequest, AppendListRequest),
		codecOf("list reply", DecodeListReply, AppendListReply),
		codecOf("fetch request", DecodeFetchRequest, AppendFetchRequest),
		codecOf("fetch reply", DecodeFetchReply, AppendFetchReply),
		codecOf("hinted request", DecodeHintedRequest, AppendHintedRequest),
		codecOf("hinted reply", DecodeHintedReply, AppendHintedReply),
		codecOf("lacks request", DecodeLacksRequest, AppendLacksRequest),
		codecOf("lacks reply", DecodeLacksReply, AppendLacksReply),
		codecOf("session request", DecodeSessionRequest, AppendSessionRequest),
		codecOf("sync request", DecodeSyncRequest, AppendSyncRequest),
		codecOf("state request", DecodeStateRequest, AppendStateRequest),
		codecOf("publish request", DecodePublishRequest, AppendPublishRequest),
		codecOf("stamp", decodeStamp, appendStamp),
		codecOf("hello", decodeHello, appendHello),
		codecOf("error", decodeError, appendError),
		frameCodec("frame", 4),
		frameCodec("frame of version 5", 5),
	}
}

// testFrame makes a codec of the frame functions.
type testFrame struct {
	h       header
	payload []byte
}

func frameCodec(name string, version uint16) codec {
	return codecOf(name, func(b []byte) (testFrame, error) { return decodeTestFrame(b, version) },
		func(dst []byte, f testFrame) []byte { return appendTestFrame(dst, f, version) })
}

func decodeTestFrame(b []byte, version uint16) (testFrame, error) {
	n, err := frameLen(b, 1<<20)
	if err != nil {
		return testFrame{}, err
	}
	if n == 0 || n != len(b) {
		return testFrame{}, ErrMalformed
	}
	h, payload, err := openFrame(b, version)
	return testFrame{h, payload}, err
}

func appendTestFrame(dst []byte, f testFrame, version uint16) []byte {
	start := len(dst)
	dst = append(beginFrame(dst, f.h, version), f.payload...)
	sealFrame(dst[start:])
	return dst
}

// goldenMessages are the messages whose bytes testdata/messages.txt holds, in
// its order.
func goldenMessages() []any {
	return []any{
		ReadRequest{Key: []byte("key")},
		ReadRequest{Key: []byte("key"), For: 0x1122334455667788, Have: 0x0102030405060708, HaveAny: true, DigestOnly: true},
		ReadReply{Same: true},
		ReadReply{},
		ReadReply{Hash: 0x0102030405060708, Record: []byte("rec")},
		ReadReply{Recovering: true, Hash: 0x0102030405060708, Record: []byte("rec")},
		MergeRequest{Key: []byte("key"), For: 0x1122334455667788, Durable: true, Record: []byte("rec")},
		MergeRequest{Key: []byte("key"), For: 0x1122334455667788, Optional: true, Record: []byte("rec")},
		WriteRequest{Key: []byte("key"), Op: []byte("op"), R: 2, W: 3},
		WriteReply{Outcome: []byte("out")},
		ScanRequest{FromSlot: 0x0102, FromHash: 0x03040506, ToSlot: 0x0708, Limit: 0x090a0b0c},
		ScanReply{Done: true},
		ScanReply{NextSlot: 0x0102, NextHash: 0x03040506, Entries: []ScanEntry{
			{Slot: 0x0102, KeyHash: 0x03040506, StateHash: 0x0102030405060708, Live: true, Key: []byte("a")},
			{Slot: 0x3fff, KeyHash: 0xffffffff, StateHash: 9, Key: []byte("b")},
		}},
		CountRequest{Ranges: []SlotRange{{0, 0x3fff}, {1, 2}}},
		CountReply{Keys: 0x0102030405060708},
		StatusRequest{},
		StatusReply{Ready: true, Epoch: 0x0102030405060708, Members: 5, Boot: 0x1112131415161718},
		InspectRequest{Key: []byte("key")},
		InspectReply{Entries: []InspectEntry{{Record: []byte("own"), Note: []byte("n")}, {For: 0x1122334455667788, Record: []byte("hint")}}},
		DeliverRequest{},
		DeliverRequest{For: 0x1122334455667788, Durable: true, Rows: []DeliverRow{{Key: []byte("a"), Record: []byte("rec")}, {Key: []byte("b"), Record: []byte("r")}}},
		DeliverReply{Credit: 0x01020304},
		NodesRequest{Units: 0x3fff, Level: 4, Step: 2, Nodes: []TreeNode{{Partition: 0x0102, Index: 0x03040506}, {}}},
		NodesReply{Hashes: []uint64{0x0102030405060708}},
		ListRequest{Limit: 0x01020304, From: 0x05060708, Cells: []uint32{1, 0x000fffff}},
		ListRequest{Limit: 0x01020304, From: 0x05060708, Whole: true, Cells: []uint32{1}},
		ListReply{Cells: 1, NextHash: 0x01020304, Entries: []ListEntry{{Slot: 0x0102, KeyHash: 0x03040506, State: 0x0102030405060708}}},
		FetchRequest{MaxBytes: 0x01020304, Positions: []Position{{Slot: 0x0102, KeyHash: 0x03040506}}},
		FetchReply{Positions: 1, Rows: []FetchRow{{Key: []byte("key"), Record: []byte("rec")}}},
		HintedRequest{Units: 0x3fff, Partitions: []uint16{1, 0x0203}},
		HintedReply{Partitions: []uint16{0x0203}},
		LacksRequest{First: Position{0x0102, 0x03040506}, Last: Position{0x3fff, 0x0a0b0c0d}},
		LacksReply{Lost: true},
		SessionRequest{End: true, Epoch: 0x0102030405060708, First: 0x090a, Last: 0x3fff},
		SyncRequest{},
		StateRequest{State: []byte("state")},
		PublishRequest{Channel: []byte("news"), Payload: []byte("text")},
		PublishRequest{Shard: true, Channel: []byte("news")},
		stamp{up: 0x0102030405060708, wall: 0x1112131415161718},
		hello{mark: laneBulk, min: 1, max: 2, cluster: testCluster, from: 0x0102030405060708, to: 0x1112131415161718, maxFrame: 4 << 20},
		ErrNoReplicas,
		ErrHintBudget,
		&UncertainError{Acked: 1, Want: 2},
		&staleError{state: []byte("state")},
		&behindError{refusal: ErrNotOwner},
		testFrame{header{kind: KindWrite, class: Repair, id: 0x0102030405060708, deadlineMS: 250}, []byte("payload")},
		testFrame{header{kind: KindMerge, class: Repair, id: 0x0102030405060708, deadlineMS: 250, epochs: testEpochs}, []byte("payload")},
		testFrame{header{kind: KindList, class: Background, id: 0x0102030405060708, deadlineMS: 250}, []byte("payload")},
		testFrame{header{kind: KindList, class: Background, id: 0x0102030405060708, deadlineMS: 250, epochs: testEpochs}, []byte("payload")},
	}
}

// testEpochs are 1, 2 and so on to 32.
var testEpochs = func() (e Epochs) {
	for i := range e {
		e[i] = byte(i + 1)
	}
	return e
}()

type goldenLine struct {
	codec codec
	bytes []byte
}

// readGolden reads lines "codec name: hex ..."; text after # is a comment.
func readGolden(t testing.TB) []goldenLine {
	t.Helper()
	byName := map[string]codec{}
	for _, c := range codecs() {
		byName[c.name] = c
	}
	file, err := os.Open("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines []goldenLine
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		text, _, _ := strings.Cut(scanner.Text(), "#")
		name, digits, ok := strings.Cut(text, ":")
		if !ok {
			continue
		}
		c, known := byName[strings.TrimSpace(name)]
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil || !known {
			t.Fatalf("golden line %q: %v", scanner.Text(), err)
		}
		lines = append(lines, goldenLine{c, b})
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestBytesOnTheWireDoNotChange(t *testing.T) {
	lines, messages := readGolden(t), goldenMessages()
	if len(lines) != len(messages) {
		t.Fatalf("%d golden lines, %d messages", len(lines), len(messages))
	}
	for i, line := range lines {
		m, b, err := line.codec.recode(line.bytes)
		if err != nil {
			t.Errorf("%s %d: %v", line.codec.name, i, err)
			continue
		}
		if !reflect.DeepEqual(m, messages[i]) {
			t.Errorf("%s %d: decoded\n %+v, want\n %+v", line.codec.name, i, m, messages[i])
		}
		if !bytes.Equal(b, line.bytes) {
			t.Errorf("%s %d: encoded\n %x, want\n %x", line.codec.name, i, b, line.bytes)
		}
	}
}

func TestCutOffAndOverlongMessagesAreMalformed(t *testing.T) {
	for i, line := range readGolden(t) {
		for n := range line.bytes {
			m, again, err := line.codec.recode(line.bytes[:n])
			if err == nil && len(again) == n {
				// A rest-of-payload field is shorter, or nothing follows a flag.
				continue
			}
			if err == nil {
				t.Errorf("%s %d cut to %d bytes decoded to %+v", line.codec.name, i, n, m)
			}
		}
		m, again, err := line.codec.recode(append(bytes.Clone(line.bytes), 0))
		if err == nil && len(again) != len(line.bytes)+1 {
			t.Errorf("%s %d with a byte more decoded to %+v", line.codec.name, i, m)
		}
	}
}

// FuzzDecode feeds every decoder: none panics, and what one accepts is exactly
// what its encoder writes.
func FuzzDecode(f *testing.F) {
	for _, line := range readGolden(f) {
		f.Add(line.bytes)
	}
	all := codecs()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range all {
			m, again, err := c.recode(b)
			if err == nil && !bytes.Equal(again, b) && !lossy(c, b) {
				t.Errorf("%s: %x decoded to %+v, which encodes as %x", c.name, b, m, again)
			}
		}
	})
}

// lossy reports the one decoder that accepts more than is written: the code of
// a newer peer's error becomes ErrInternal, and an uncertain outcome may come
// without its counts.
func lossy(c codec, b []byte) bool { return c.name == "error" && len(b) == 1 }

func TestMalformedEntryCountsAllocateNothing(t *testing.T) {
	bad := [][]byte{
		{0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},       // a scan reply of 2^32-1 entries
		{0xff, 0xff, 0xff, 0xff, 0xff},                      // ranges, inspect entries, a key
		{0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, // rows to deliver
	}
	for _, b := range bad {
		for _, c := range codecs() {
			if c.name == "state request" || c.name == "publish request" {
				continue // any bytes are a state or a message, and nothing is counted
			}
			if m, _, err := c.recode(b); err == nil {
				t.Errorf("%s: %x decoded to %+v", c.name, b, m)
			}
		}
	}
	allocs := testing.AllocsPerRun(100, func() {
		_, _ = DecodeScanReply(bad[0])
		_, _ = DecodeCountRequest(bad[1])
		_, _ = DecodeInspectReply(bad[1])
		_, _ = DecodeDeliverRequest(bad[2])
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
