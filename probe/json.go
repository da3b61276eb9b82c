package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// timeLayout is RFC 3339 with nine digits always, so that instants sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// seconds is a duration as programs read it: a decimal number of seconds.
type seconds time.Duration

// MarshalJSON writes the nanoseconds as they are: by way of floating point,
// 2.925890498 s would come out as 2.9258904980000002.
func (s seconds) MarshalJSON() ([]byte, error) {
	var b []byte
	n := uint64(s)
	if s < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendUint(b, n/1e9, 10)
	if n %= 1e9; n > 0 {
		b = append(b, '.')
		for unit := uint64(1e8); n > 0; unit /= 10 {
			b = append(b, byte('0'+n/unit))
			n %= unit
		}
	}
	return b, nil
}

func (s *seconds) UnmarshalJSON(b []byte) error {
	if n, ok := exactly(string(b)); ok {
		*s = n
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64) // with an exponent, or finer than we write
	if err != nil {
		return fmt.Errorf("%q is not a number of seconds", b)
	}
	if f = math.Round(f * 1e9); math.Abs(f) >= 1<<63 {
		return fmt.Errorf("%q seconds do not fit a duration", b)
	}
	*s = seconds(f)
	return nil
}

// exactly reads a number that MarshalJSON may have written.
func exactly(text string) (seconds, bool) {
	whole, part, _ := strings.Cut(text, ".")
	if len(part) > 9 {
		return 0, false
	}
	n, err := strconv.ParseInt(whole+part+"000000000"[len(part):], 10, 64)
	return seconds(n), err == nil
}

// resultJSON is the published shape of a result. Programs read it: fields are
// added, never renamed or removed.
type resultJSON struct {
	Time      string      `json:"time"`
	Agent     string      `json:"agent"`
	Source    string      `json:"source,omitempty"`
	Target    string      `json:"target"`
	Remote    string      `json:"remote"`
	LocalPort uint16      `json:"local_port"`
	Outcome   Outcome     `json:"outcome"`
	RTT       *seconds    `json:"rtt_seconds,omitempty"`
	Attempts  int         `json:"attempts"`
	Retry     *retryJSON  `json:"retry,omitempty"`
	Stamp     Stamp       `json:"stamp"`
	Lateness  seconds     `json:"lateness_seconds"`
	HostDelay seconds     `json:"host_delay_seconds"`
	Neighbour bool        `json:"neighbour_lookup,omitempty"`
	Drops     int         `json:"drops,omitempty"`
	SYN       *synJSON    `json:"syn,omitempty"`
	SynAck    *synAckJSON `json:"syn_ack,omitempty"`
	Close     *closeJSON  `json:"close,omitempty"`
	ICMP      *icmpJSON   `json:"icmp,omitempty"`
	Err       string      `json:"error,omitempty"`
}

type synAckJSON struct {
	Seq           uint32 `json:"seq"`
	Window        uint16 `json:"window"`
	MSS           uint16 `json:"mss,omitempty"`
	WindowScale   *int8  `json:"window_scale,omitempty"`
	SACKPermitted bool   `json:"sack_permitted"`
	Timestamps    bool   `json:"timestamps"`
	ECN           bool   `json:"ecn,omitempty"`
	TTL           uint8  `json:"ttl"`
}

type synJSON struct {
	Seq uint32 `json:"seq"`
}

type retryJSON struct {
	Answered int     `json:"answered"`
	Lost     Lost    `json:"lost"`
	Waited   seconds `json:"waited_seconds"`
}

func (t *retryJSON) retry() *Retry {
	if t == nil {
		return nil
	}
	return &Retry{t.Answered, t.Lost, time.Duration(t.Waited)}
}

type closeJSON struct {
	Ending Ending  `json:"ending"`
	Ack    seconds `json:"ack_seconds,omitempty"`
	Fin    seconds `json:"fin_seconds,omitempty"`
}

type icmpJSON struct {
	Type uint8      `json:"type"`
	Code uint8      `json:"code"`
	From netip.Addr `json:"from"`
}

// MarshalJSON writes the result as one object in the published shape: the
// instant in RFC 3339 with nanoseconds, durations in seconds.
func (r Result) MarshalJSON() ([]byte, error) {
	at := r.Time.UTC()
	if y := at.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("RFC 3339 has no year %d", y)
	}
	j := resultJSON{
		Time: at.Format(timeLayout), Agent: r.Agent, Source: r.Source, Target: r.Target,
		LocalPort: r.LocalPort, Outcome: r.Outcome, Attempts: r.Attempts, Stamp: r.Stamp,
		Lateness: seconds(r.Lateness), HostDelay: seconds(r.HostDelay), Neighbour: r.NeighbourLookup, Drops: r.Drops, Err: r.Err,
	}
	if r.Remote.IsValid() {
		j.Remote = r.Remote.String()
	}
	if r.Timed() {
		rtt := seconds(r.RTT)
		j.RTT = &rtt
	}
	if s := r.SynAck; s != nil {
		j.SynAck = &synAckJSON{Seq: s.Seq, Window: s.Window, MSS: s.MSS,
			SACKPermitted: s.SACKPermitted, Timestamps: s.Timestamps, ECN: s.ECN, TTL: s.TTL}
		if s.WindowScale >= 0 {
			j.SynAck.WindowScale = &s.WindowScale
		}
	}
	if r.SYN != 0 {
		j.SYN = &synJSON{r.SYN}
	}
	if t := r.Retry; t != nil {
		j.Retry = &retryJSON{t.Answered, t.Lost, seconds(t.Waited)}
	}
	if c := r.Close; c != nil {
		j.Close = &closeJSON{c.Ending, seconds(c.Ack), seconds(c.Fin)}
	}
	if i := r.ICMP; i != nil {
		j.ICMP = (*icmpJSON)(i)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote. Fields it does not know are
// passed over; a result without an outcome, a stamp or the round trip that
// belongs to its outcome is none.
func (r *Result) UnmarshalJSON(b []byte) error {
	var j resultJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, j.Time)
	if at = at.UTC(); err != nil || at.Year() < 0 || at.Year() > 9999 {
		return fmt.Errorf("time %q is not RFC 3339", j.Time)
	}
	switch {
	case j.Outcome == 0:
		return errors.New("outcome is missing")
	case j.Stamp == 0:
		return errors.New("stamp is missing")
	case (j.Outcome.Answered() && j.Retry.retry().timed()) != (j.RTT != nil):
		return fmt.Errorf("outcome %s does not fit: open and closed have rtt_seconds, unless it is unknown which SYN was answered; the others do not", j.Outcome)
	}
	*r = Result{
		Time: at, Agent: j.Agent, Source: j.Source, Target: j.Target, LocalPort: j.LocalPort,
		Outcome: j.Outcome, Attempts: j.Attempts, Stamp: j.Stamp, Lateness: time.Duration(j.Lateness),
		HostDelay: time.Duration(j.HostDelay), NeighbourLookup: j.Neighbour, Drops: j.Drops, ICMP: (*ICMP)(j.ICMP), Err: j.Err,
	}
	if j.SYN != nil {
		r.SYN = j.SYN.Seq
	}
	r.Retry = j.Retry.retry()
	if c := j.Close; c != nil {
		if c.Ending == 0 {
			return errors.New("close.ending is missing")
		}
		r.Close = &Close{c.Ending, time.Duration(c.Ack), time.Duration(c.Fin)}
	}
	if j.Remote != "" {
		if r.Remote, err = netip.ParseAddrPort(j.Remote); err != nil {
			return fmt.Errorf("remote %q is not address:port", j.Remote)
		}
	}
	if j.RTT != nil {
		r.RTT = time.Duration(*j.RTT)
	}
	if s := j.SynAck; s != nil {
		r.SynAck = &SynAck{Seq: s.Seq, Window: s.Window, MSS: s.MSS, WindowScale: -1,
			SACKPermitted: s.SACKPermitted, Timestamps: s.Timestamps, ECN: s.ECN, TTL: s.TTL}
		if s.WindowScale != nil {
			if *s.WindowScale < 0 {
				return fmt.Errorf("syn_ack.window_scale %d is no shift count", *s.WindowScale)
			}
			r.SynAck.WindowScale = *s.WindowScale
		}
	}
	return nil
}
