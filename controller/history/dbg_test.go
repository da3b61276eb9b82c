package history
import ("testing";"os";"path/filepath";"bytes";"errors";"log/slog";"fmt";"math/rand/v2")
func TestDbg(t *testing.T){
	cfg := filled(t, 100)
	cfg.now = newClock("2026-11-20T12:00:01Z").now
	good, _ := os.ReadFile(filepath.Join(cfg.Dir, day))
	length := int64(len(good))
	good = bytes.TrimRight(good, "\x00")
	for i:=0;i<20000;i++ {
	for _, name := range fileNames(t, cfg.Dir) { os.Remove(filepath.Join(cfg.Dir, name)) }
	// only structure: first 200 bytes of a page
	pg := rand.IntN(len(good)/4096)
	bit := pg*4096*8 + rand.IntN(200*8)
	b := bytes.Clone(good)
	b[bit/8] ^= 1 << (bit % 8)
	path := filepath.Join(cfg.Dir, day)
	if err := errors.Join(os.WriteFile(path, b, 0o600), os.Truncate(path, length)); err != nil { t.Fatal(err) }
	var lb logBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&lb,nil))
	s := start(t, cfg)
	n:=len(all(t,s))
	add(t, s, "b", 1, 1)
	m:=len(all(t,s))
	if m != n+1 {
	p := bit/8/4096*4096
	fmt.Printf("trial %d %d %d page %d bit %d off %d: % x\n", i, n,m,p/4096, bit, bit/8-p, good[p:p+128])
	fmt.Println(fileNames(t,cfg.Dir), s.newest().name, s.Stats(), lb.b.String())
	for r:=0;r+4096<=len(good);r+=4096 { fmt.Printf("%d: % x\n", r/4096, good[r:r+48]) }
	t.FailNow()
	}
	s.stop()
	}
}
