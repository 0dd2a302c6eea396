// A khatru relay on SQLite, for tests and the bench: a foreign peer, built from the Go module proxy.
//
//	khatru --db FILE [--host 127.0.0.1] [--port 0] [--auth] [--fast] [--limit N]
//
// When it listens it prints one line of JSON with its url and pid. SIGTERM ends it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/fiatjaf/eventstore/sqlite3"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
)

var private = []int{nostr.KindEncryptedDirectMessage, nostr.KindGiftWrap}

// Every reader says who it is, and reads no letters but its own (NIP-42 as DM relays use it).
func onlyOwnLetters(ctx context.Context, filter nostr.Filter) (bool, string) {
	key := khatru.GetAuthed(ctx)
	if key == "" {
		return true, "auth-required: say who reads"
	}
	asksLetters := slices.ContainsFunc(filter.Kinds, func(kind int) bool { return slices.Contains(private, kind) })
	if !asksLetters || slices.Equal(filter.Authors, []string{key}) {
		return false, ""
	}
	if to := filter.Tags["p"]; !slices.Equal(to, []string{key}) {
		return true, "restricted: letters are for whom they are addressed to"
	}
	return false, ""
}

func onlyKnownWriters(ctx context.Context, _ *nostr.Event) (bool, string) {
	if khatru.GetAuthed(ctx) == "" {
		return true, "auth-required: say who writes"
	}
	return false, ""
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	file := flag.String("db", "", "the SQLite file")
	host := flag.String("host", "127.0.0.1", "address to listen on")
	port := flag.Int("port", 0, "port to listen on; 0 takes a free one")
	auth := flag.Bool("auth", false, "NIP-42 for reading and writing")
	fast := flag.Bool("fast", false, "synchronous=NORMAL: an event survives the process, not a power cut")
	limit := flag.Int("limit", 500, "events per answer")
	flag.Parse()

	synchronous := "FULL"
	if *fast {
		synchronous = "NORMAL"
	}
	db := sqlite3.SQLite3Backend{
		DatabaseURL:       fmt.Sprintf("file:%s?_journal_mode=WAL&_synchronous=%s&_busy_timeout=10000", *file, synchronous),
		QueryLimit:        *limit,
		QueryAuthorsLimit: 2000, QueryIDsLimit: 2000, QueryTagsLimit: 2000, QueryKindsLimit: 50,
	}
	fail(db.Init())

	relay := khatru.NewRelay()
	relay.Negentropy = true
	relay.Info.Name = "khatru"
	relay.Info.SupportedNIPs = append(relay.Info.SupportedNIPs, 45, 77)
	relay.StoreEvent = append(relay.StoreEvent, db.SaveEvent)
	relay.QueryEvents = append(relay.QueryEvents, db.QueryEvents)
	relay.CountEvents = append(relay.CountEvents, db.CountEvents)
	relay.DeleteEvent = append(relay.DeleteEvent, db.DeleteEvent)
	relay.ReplaceEvent = append(relay.ReplaceEvent, db.ReplaceEvent)
	if *auth {
		relay.OnConnect = append(relay.OnConnect, khatru.RequestAuth)
		relay.RejectFilter = append(relay.RejectFilter, onlyOwnLetters)
		relay.RejectCountFilter = append(relay.RejectCountFilter, onlyOwnLetters)
		relay.RejectEvent = append(relay.RejectEvent, onlyKnownWriters)
	}

	listener, err := net.Listen("tcp", net.JoinHostPort(*host, fmt.Sprint(*port)))
	fail(err)
	line, err := json.Marshal(map[string]any{"url": "ws://" + listener.Addr().String(), "pid": os.Getpid()})
	fail(err)
	fmt.Println(string(line))

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		fail(http.Serve(listener, relay))
	}()
	<-stop
	db.Close()
}
