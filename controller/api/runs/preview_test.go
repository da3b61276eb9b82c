package runs

import (
	"testing"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestAResultIsShownOnceBeItFromAPreviewOrNot(t *testing.T) {
	bubble(t, func(b *bench) {
		fra, nyc := b.join("fra-1"), b.join("nyc-1")
		v := b.start("", spec(10, "db.fra:5432"), "fra-1", "nyc-1")
		fra.preview(1, found(v.run, 1))
		v.wantResults("fra-1", 1)
		fra.preview(3, found(v.run, 3)) // and the second did not get through
		v.wantResults("fra-1", 3)
		fra.preview(3, found(v.run, 3)) // comes twice
		fra.stored(1, found(v.run, 1))
		fra.stored(2, found(v.run, 2))
		v.wantResults("fra-1", 2)
		nyc.stored(3, found(v.run, 7)) // is another's number
		v.wantResults("nyc-1", 7)
		fra.stored(3, found(v.run, 3))
		fra.stored(0, found(v.run, 5)) // there is no preview of it
		v.wantResults("fra-1", 5)
		fra.preview(4, found(v.run, 4))
		v.wantResults("fra-1", 4)
		fra.stored(4, found(v.run, 4), &synmeshv1.RunEnd{Run: v.run, Produced: 15})
		v.wantEnded("fra-1", 0, "")
		fra.preview(5, found(v.run, 9)) // whose part is over
		nyc.stored(0, nil, &synmeshv1.RunEnd{Run: v.run, Produced: 7})
		v.wantEnded("nyc-1", 0, "")
		v.wantOver()
	})
}

func TestWhatWasShownAndNotStoredIsMissing(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.start("", spec(3, "db.fra:5432"), "fra-1")
		fra.preview(1, found(v.run, 2))
		v.wantResults("fra-1", 2)
		fra.stored(0, nil, &synmeshv1.RunEnd{Run: v.run, Produced: 2})
		v.wantEnded("fra-1", 2, "")
		v.wantOver()
	})
}

func TestPreviewsOfOthersAreNotShown(t *testing.T) {
	bubble(t, func(b *bench) {
		old, other := b.join("fra-1"), b.join("nyc-1")
		fra := b.join("fra-1")
		v := b.start("dc=fra", spec(3, "db.fra:5432"), "fra-1")
		old.preview(1, found(v.run, 1))
		other.preview(1, found(v.run, 1))
		fra.preview(1, found("runs/another", 1))
		fra.preview(2, append(found("runs/another", 1), found(v.run, 2)...))
		v.wantResults("fra-1", 2)
		fra.stored(2, append(found("runs/another", 1), found(v.run, 2)...), &synmeshv1.RunEnd{Run: v.run, Produced: 2})
		v.wantEnded("fra-1", 0, "")
		v.wantOver()
	})
}

// Whoever sends previews and never a report does not fill the memory.
func TestOnlySoManyPreviewsAreShownThatAreNotStored(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.start("", spec(0, "db.fra:5432"), "fra-1")
		for n := range uint64(maxShown) {
			fra.preview(n+1, found(v.run, 1))
			v.wantResults("fra-1", 1)
		}
		fra.preview(maxShown+1, found(v.run, 2))
		fra.stored(1, found(v.run, 1))
		fra.stored(maxShown+1, found(v.run, 3))
		v.wantResults("fra-1", 3)
		fra.preview(maxShown+2, found(v.run, 4)) // there is room for one again
		v.wantResults("fra-1", 4)
		v.leave()
	})
}
