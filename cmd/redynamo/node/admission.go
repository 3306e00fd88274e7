package node

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redynamo/redynamo/coordinator/admission"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/resp"
)

func (n *Node) buildAdmission(context.Context) (err error) {
	n.admission, err = admission.New(admission.Config{
		Multiple: n.cfg.BackgroundTarget, Stalled: n.store.Stalled,
		InFlight: func() int { return n.coord.InFlight() + n.server.InFlight() },
		Now:      n.cfg.Now, Metrics: n.set,
	})
	return err
}

// pace is how a kind of background work asks for its time.
func (n *Node) pace(k admission.Kind) func(context.Context) (func(), error) {
	return func(ctx context.Context) (func(), error) {
		end, err := n.admission.Slice(ctx, k)
		if err != nil {
			return nil, err
		}
		return func() { end(0) }, nil
	}
}

// paceExchange is pace for anti-entropy, which tells what it waited for its peer.
func (n *Node) paceExchange(ctx context.Context) (end func(waited time.Duration), err error) {
	return n.admission.Slice(ctx, admission.Exchange)
}

// began is when a question of another node came, if a client there waits for
// the answer: that counts as this node's latency, too.
func (h handler) began(meta rpc.Meta) time.Time {
	if meta.Class != rpc.Foreground {
		return time.Time{}
	}
	return time.Now()
}

// ended counts a question as answered.
func (h handler) ended(began time.Time) {
	if !began.IsZero() {
		h.n.admission.Ended(admission.Peer, time.Since(began))
	}
}

// admissionFields are the lines of INFO about what background work may take.
func (p *publisher) admissionFields() []resp.Field {
	ms := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1000, 'f', 1, 64) }
	st := p.n.admission.Status()
	return []resp.Field{
		{Name: "background_share", Value: fmt.Sprintf("%.2f", st.Share)},
		{Name: "foreground_p99_ms", Value: ms(st.P99)},
		{Name: "foreground_target_ms", Value: ms(st.Target)},
		{Name: "foreground_target_measured", Value: strconv.FormatBool(st.Measured)},
	}
}
