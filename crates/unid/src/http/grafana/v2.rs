//! The dashboard as a resource of schema v2, as Grafana 13 saves and imports it. Owns the spelling alone.

use serde_json::{Map, Value, json};

use super::board::{self, Board, Panel, Variable};

/// The Grafana whose form this is.
const PLUGIN_VERSION: &str = "13.0.1";

/// The whole document.
pub(super) fn document(board: &Board) -> Value {
    let elements: Map<String, Value> = board
        .panels
        .iter()
        .zip(1..)
        .map(|(panel, id)| (element(id), self::panel(board, panel, id)))
        .collect();
    let items: Vec<Value> = (0..board.panels.len()).map(item).collect();
    let variables = std::iter::once(source()).chain(board.variables.iter().map(variable));
    json!({
        "apiVersion": "dashboard.grafana.app/v2",
        "kind": "Dashboard",
        "metadata": { "name": board::UID },
        "spec": {
            "title": board::TITLE,
            "description": board::DESCRIPTION,
            "tags": [],
            "links": [],
            "editable": true,
            "liveNow": false,
            "preload": false,
            "cursorSync": "Crosshair",
            "annotations": [built_in_annotation(), annotation(board)],
            "variables": variables.collect::<Vec<_>>(),
            "elements": elements,
            "layout": { "kind": "GridLayout", "spec": { "items": items } },
            "timeSettings": {
                "timezone": "browser", "from": board::FROM, "to": board::TO, "autoRefresh": "",
                "autoRefreshIntervals": board::REFRESHES, "hideTimepicker": false, "fiscalYearStartMonth": 0,
            },
        },
    })
}

fn element(id: usize) -> String {
    format!("panel-{id}")
}

fn item(index: usize) -> Value {
    let (x, y) = board::place(index);
    json!({ "kind": "GridLayoutItem", "spec": {
        "x": x, "y": y, "width": board::PANEL_WIDTH, "height": board::PANEL_HEIGHT,
        "element": { "kind": "ElementReference", "name": element(index + 1) },
    } })
}

fn panel(board: &Board, panel: &Panel, id: usize) -> Value {
    let queries = panel.queries.iter().map(|query| {
        let spec = json!({ "refId": query.id, "hidden": false, "query": data_query(&query.spec()) });
        json!({ "kind": "PanelQuery", "spec": spec })
    });
    json!({ "kind": "Panel", "spec": {
        "id": id, "title": panel.title, "description": panel.description, "links": [],
        "data": { "kind": "QueryGroup", "spec": {
            "queries": queries.collect::<Vec<_>>(),
            "queryOptions": { "interval": board.interval() },
            "transformations": [],
        } },
        "vizConfig": { "kind": "VizConfig", "group": panel.plugin(), "version": PLUGIN_VERSION, "spec": {
            "fieldConfig": board.field_config(panel), "options": panel.options(),
        } },
    } })
}

fn data_query(spec: &Value) -> Value {
    json!({
        "kind": "DataQuery", "group": board::SOURCE_KIND, "version": "v0",
        "datasource": { "name": format!("${{{}}}", board::SOURCE) }, "spec": spec,
    })
}

fn source() -> Value {
    json!({ "kind": "DatasourceVariable", "spec": {
        "name": board::SOURCE, "label": "Data source", "pluginId": board::SOURCE_KIND,
        "current": { "text": "", "value": "" }, "options": [], "regex": "", "refresh": "onDashboardLoad",
        "multi": false, "includeAll": false, "allowCustomValue": false, "hide": "dontHide", "skipUrlSync": false,
    } })
}

fn variable(variable: &Variable) -> Value {
    json!({ "kind": "QueryVariable", "spec": {
        "name": variable.name, "label": variable.label, "description": variable.description,
        "query": data_query(&json!({ "query": variable.query, "refId": variable.name })),
        "definition": variable.query,
        "current": { "text": ["All"], "value": ["$__all"] }, "options": [], "regex": "", "sort": "alphabeticalAsc",
        "multi": true, "includeAll": true, "allValue": board::ALL, "allowCustomValue": false,
        "refresh": "onTimeRangeChanged", "hide": "dontHide", "skipUrlSync": false,
    } })
}

fn annotation(board: &Board) -> Value {
    let annotation = &board.annotation;
    json!({ "kind": "AnnotationQuery", "spec": {
        "name": annotation.name, "enable": true, "hide": false, "iconColor": annotation.color,
        "query": data_query(&annotation.spec()),
    } })
}

/// Every dashboard has this one: marks made by hand.
fn built_in_annotation() -> Value {
    json!({ "kind": "AnnotationQuery", "spec": {
        "name": "Annotations & Alerts", "enable": true, "hide": true, "builtIn": true,
        "iconColor": "rgba(0, 211, 255, 1)",
        "query": { "kind": "DataQuery", "group": "grafana", "version": "v0",
            "datasource": { "name": "-- Grafana --" }, "spec": {} },
    } })
}
