// Sends each key to each topic, then prints the event id of that many alerts.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap, alerts, topics, keys := os.Args[1], os.Args[2], os.Args[4], os.Args[5]
	left, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup("go-"+alerts), kgo.ConsumeTopics(alerts),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, topic := range strings.Split(topics, ",") {
		for _, key := range strings.Split(keys, ",") {
			record := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(key)}
			if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
				log.Fatal(err)
			}
		}
	}
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			log.Fatal(err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			for _, header := range record.Headers {
				if header.Key == "ce_id" {
					fmt.Println(string(header.Value))
					left--
				}
			}
		})
	}
}
