module haneul.dev/components/await-connection

go 1.26.0
