package membership

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestBrokenPacketsCannotFillTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := &logBridge{log: slog.New(slog.NewTextHandler(&out, nil))}
		for i := range 100 {
			fmt.Fprintf(b, "[DEBUG] memberlist: stream %d", i)
			fmt.Fprintf(b, "[ERR] memberlist: bad packet %d", i)
		}
		if n := strings.Count(out.String(), "\n"); n != linesPerMinute || strings.Contains(out.String(), "stream") {
			t.Errorf("%d lines, want %d, and none for streams:\n%s", n, linesPerMinute, out.String())
		}
		out.Reset()
		time.Sleep(time.Minute)
		fmt.Fprint(b, "[ERR] memberlist: bad packet 100")
		if want := fmt.Sprintf("lines_dropped=%d", 100-linesPerMinute); !strings.Contains(out.String(), want) {
			t.Errorf("a minute later %q, want %s said", out.String(), want)
		}
	})
}
