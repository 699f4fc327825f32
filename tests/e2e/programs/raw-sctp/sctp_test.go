package sctp

import (
	"bytes"
	"testing"
	"time"
)

// Raw sockets take root: tests/e2e/build.sh runs this before it builds the test server.
func TestExchange(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		address, err := ResolveSCTPAddr("sctp", host+":9003")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := ListenSCTP("sctp", &SCTPAddr{Port: 9003})
		if err != nil {
			t.Fatal(err)
		}
		other, err := ListenSCTP("sctp", &SCTPAddr{Port: 9005})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := listener.AcceptSCTP()
			if err != nil {
				return
			}
			if peer, err := conn.SCTPRemoteAddr(0); err != nil || peer.IPAddrs[0].String() != address.IPAddrs[0].String() {
				return
			}
			_, _ = conn.Write([]byte("answer"))
			_ = conn.Close()
		}()
		conn, err := DialSCTP("sctp", nil, address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 1024)
		length, err := conn.Read(buffer)
		if err != nil || !bytes.Equal(buffer[:length], []byte("answer")) {
			t.Fatal(string(buffer[:length]), err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		// The other side has closed by now, or does not answer.
		if _, err := conn.Read(buffer); err == nil {
			t.Fatal("read after the end")
		}
		if _, err := conn.Write([]byte("too late")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := conn.Close(); err != nil || time.Since(start) > 10*time.Second {
			t.Fatal(err, time.Since(start))
		}
		_ = listener.Close()
		_ = other.Close()
	}
}

func TestDamagedPacketsAreDropped(t *testing.T) {
	bytes := packet{1, 2, 3, []chunk{{chunkAbort, 0, nil}}}.encode()
	if p, ok := decode(bytes); !ok || p.from != 1 || p.to != 2 || p.tag != 3 || len(p.chunks) != 1 {
		t.Fatal(p, ok)
	}
	for i := range bytes {
		damaged := append([]byte(nil), bytes...)
		damaged[i] ^= 1
		if _, ok := decode(damaged); ok {
			t.Fatal("byte", i)
		}
		if _, ok := decode(bytes[:i]); ok {
			t.Fatal("length", i)
		}
	}
}
