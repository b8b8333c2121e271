// Writes with InfluxDB's client for Node: influx_client.js HOST PORT
const Influx = require('influx')

const [host, port] = process.argv.slice(2)
const influx = new Influx.InfluxDB({ host, port: Number(port), database: 'node' })

async function main() {
  await influx.createDatabase('node')
  const points = Array.from({ length: 100 }, (_, n) => (
    { measurement: 'm', tags: { n: String(n) }, fields: { f: n + 0.5 }, timestamp: n + 1 }
  ))
  await influx.writePoints(points, { precision: 's' })
  const rows = await influx.query('SELECT f FROM m')
  if (rows.length !== 100) throw new Error(`${rows.length} rows of 100`)
}

main().catch((error) => { console.error(error); process.exit(1) })
