//! The dashboard in the classic schema, as Grafana imports it since version 8. Owns the spelling alone.

use serde_json::{Value, json};

use super::board::{self, Board, Panel, Variable};

/// The schema of Grafana 9: newer ones migrate it, and it names data sources by reference.
const SCHEMA_VERSION: u32 = 36;
/// Grafana's numbers for "when the time range changes" and "by alphabet".
const REFRESH_ON_TIME_RANGE: u32 = 2;
const REFRESH_ON_LOAD: u32 = 1;
const SORT_ALPHABETICAL: u32 = 1;
const SHARED_CROSSHAIR: u32 = 1;

/// The whole document.
pub(super) fn document(board: &Board) -> Value {
    let variables = std::iter::once(source()).chain(board.variables.iter().map(variable));
    let panels = board.panels.iter().enumerate().map(|(index, panel)| self::panel(board, panel, index));
    json!({
        "id": null,
        "uid": board::UID,
        "title": board::TITLE,
        "description": board::DESCRIPTION,
        "tags": [],
        "links": [],
        "editable": true,
        "liveNow": false,
        "graphTooltip": SHARED_CROSSHAIR,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "time": { "from": board::FROM, "to": board::TO },
        "timepicker": { "refresh_intervals": board::REFRESHES },
        "refresh": "",
        "annotations": { "list": [built_in_annotation(), annotation(board)] },
        "templating": { "list": variables.collect::<Vec<_>>() },
        "panels": panels.collect::<Vec<_>>(),
    })
}

fn datasource() -> Value {
    json!({ "type": board::SOURCE_KIND, "uid": format!("${{{}}}", board::SOURCE) })
}

fn panel(board: &Board, panel: &Panel, index: usize) -> Value {
    let (x, y) = board::place(index);
    let targets = panel.queries.iter().map(|query| {
        let mut target = query.spec();
        target["refId"] = query.id.into();
        target["hide"] = false.into();
        target["datasource"] = datasource();
        target
    });
    json!({
        "id": index + 1, "type": panel.plugin(), "title": panel.title, "description": panel.description,
        "gridPos": { "x": x, "y": y, "w": board::PANEL_WIDTH, "h": board::PANEL_HEIGHT },
        "datasource": datasource(), "interval": board.interval(), "targets": targets.collect::<Vec<_>>(),
        "fieldConfig": board.field_config(panel), "options": panel.options(), "links": [], "transformations": [],
    })
}

fn source() -> Value {
    json!({
        "type": "datasource", "name": board::SOURCE, "label": "Data source", "query": board::SOURCE_KIND,
        "current": {}, "options": [], "regex": "", "refresh": REFRESH_ON_LOAD, "multi": false, "includeAll": false,
        "hide": 0, "skipUrlSync": false,
    })
}

fn variable(variable: &Variable) -> Value {
    json!({
        "type": "query", "name": variable.name, "label": variable.label, "description": variable.description,
        "datasource": datasource(), "query": variable.query, "definition": variable.query,
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] }, "options": [], "regex": "",
        "sort": SORT_ALPHABETICAL, "multi": true, "includeAll": true, "allValue": board::ALL,
        "refresh": REFRESH_ON_TIME_RANGE, "hide": 0, "skipUrlSync": false,
    })
}

/// Older Grafanas read the columns beside the query, newer ones inside `target`.
fn annotation(board: &Board) -> Value {
    let annotation = &board.annotation;
    let mut written = annotation.spec();
    written["target"] = annotation.spec();
    written["target"]["refId"] = "Anno".into();
    written["name"] = annotation.name.into();
    written["enable"] = true.into();
    written["hide"] = false.into();
    written["iconColor"] = annotation.color.into();
    written["datasource"] = datasource();
    written
}

/// Every dashboard has this one: marks made by hand.
fn built_in_annotation() -> Value {
    json!({
        "builtIn": 1, "name": "Annotations & Alerts", "type": "dashboard", "enable": true, "hide": true,
        "iconColor": "rgba(0, 211, 255, 1)", "datasource": { "type": "grafana", "uid": "-- Grafana --" },
    })
}
