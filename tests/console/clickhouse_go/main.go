// Asks one server queries as Grafana's ClickHouse data source does: database/sql over clickhouse-go's HTTP protocol.
//
// Usage: clickhouse_go ADDRESS DATABASE USER PASSWORD COMPRESSION < queries.json
// Reads a JSON list of queries; writes a line of JSON for each: {"columns": [...], "types": [...], "rows": [[...]], "error": "..."}.
// A query that begins with "INSERT" is sent as a batch of two rows (1, "one"), (2, "two").
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type answer struct {
	Columns []string   `json:"columns"`
	Types   []string   `json:"types"`
	Rows    [][]string `json:"rows"`
	Error   string     `json:"error"`
}

var compressions = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone,
	"gzip": clickhouse.CompressionGZIP,
	"lz4":  clickhouse.CompressionLZ4,
}

func main() {
	address, database, user, password, compression := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{address},
		Auth:        clickhouse.Auth{Database: database, Username: user, Password: password},
		Protocol:    clickhouse.HTTP,
		Compression: &clickhouse.Compression{Method: compressions[compression]},
		Settings:    clickhouse.Settings{"limit": 1000, "max_execution_time": 60},
		DialTimeout: 60 * time.Second,
		ReadTimeout: 60 * time.Second,
	})
	defer db.Close()
	var queries []string
	if err := json.NewDecoder(os.Stdin).Decode(&queries); err != nil {
		panic(err)
	}
	lines := json.NewEncoder(os.Stdout)
	for _, query := range queries {
		result := answer{Columns: []string{}, Types: []string{}, Rows: [][]string{}}
		var err error
		if strings.HasPrefix(query, "INSERT") {
			err = insert(db, query)
		} else {
			err = ask(db, query, &result)
		}
		if err != nil {
			result.Error = err.Error()
		}
		if err := lines.Encode(result); err != nil {
			panic(err)
		}
	}
}

func ask(db *sql.DB, query string, result *answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	for _, kind := range types {
		result.Columns = append(result.Columns, kind.Name())
		result.Types = append(result.Types, kind.DatabaseTypeName())
	}
	for rows.Next() {
		values := make([]any, len(types))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		row := []string{}
		for _, value := range values {
			row = append(row, fmt.Sprint(*value.(*any)))
		}
		result.Rows = append(result.Rows, row)
	}
	return rows.Err()
}

func insert(db *sql.DB, query string) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	batch, err := tx.Prepare(query)
	if err != nil {
		return err
	}
	for number, name := range map[uint64]string{1: "one", 2: "two"} {
		if _, err := batch.Exec(number, name); err != nil {
			return err
		}
	}
	return tx.Commit()
}
