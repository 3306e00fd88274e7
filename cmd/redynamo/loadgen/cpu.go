package loadgen

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of CPU times in /proc: Linux fixes USER_HZ at 100 on
// every architecture that Go runs on.
const clockTick = time.Second / 100

// CPUTime is the user and system time that the processes have used so far,
// summed. A process that is gone, or a system without /proc, counts zero.
func CPUTime(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The second field is the command in parentheses and may hold spaces.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 13 {
			continue
		}
		for _, f := range fields[11:13] {
			ticks, _ := strconv.ParseInt(string(f), 10, 64)
			sum += time.Duration(ticks) * clockTick
		}
	}
	return sum
}
